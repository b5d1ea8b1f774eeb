"""LyricsPretrainingTrainer: Transformers' trainer for the four objectives of the first stage."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer

from .common.averages import RunningAverages
from .common.trainer_mixin import TrainsPreparedRows
from .data.datasets import NOT_FOR_THE_MODEL
from .pretraining_collator import LyricsPretrainingCollator
from .pretraining_config import LyricsPretrainingArguments


class LyricsPretrainingTrainer(TrainsPreparedRows, Trainer):
    """Trains a `LyricsForPreTraining`.

    Losses and metrics of the objectives are logged beside the sum, averaged over micro-batches and processes. A loss
    that is not finite stops the run before the optimizer has seen it. The vision encoder is frozen and stays in
    evaluation mode, unless `args.train_vision_model` is set.

    Args:
        model: a `LyricsForPreTraining`.
        args: `LyricsPretrainingArguments`.
        train_dataset: rows with a picture and a caption: a map-style data set, a `datasets.IterableDataset` or a
            `TarSource`; streams need `max_steps`.
        eval_dataset: a map-style data set of such rows, or several by name.
        processing_class: a `LyricsProcessor`; saved with the model, without its refiner.
        data_collator: by default a `LyricsPretrainingCollator` with the settings of `args`.
        kwargs: of Transformers' trainer (`callbacks`, `optimizers`, ...).
    """

    args: LyricsPretrainingArguments
    loss_is_scaled_for_ga = False  # losses are means of a micro-batch

    def __init__(
        self,
        model: Any,
        args: LyricsPretrainingArguments,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        data_collator: LyricsPretrainingCollator | None = None,
        **kwargs: Any,
    ) -> None:
        if data_collator is None:
            if processing_class is None:
                raise ValueError("LyricsPretrainingTrainer needs a processing_class (a LyricsProcessor).")
            data_collator = build_collator(processing_class, args, model.config)
        model.model.vision_model.requires_grad_(args.train_vision_model)
        self.collator = data_collator
        self._averages = {"train": RunningAverages(), "eval": RunningAverages()}
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=self.prepare_rows(train_dataset, args, streams=True),
            eval_dataset=self.prepare_rows(eval_dataset, args),
            processing_class=processing_class,
            **kwargs,
        )
        self._watch()

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Weights that decay: matrices and queries, and no bias, norm or temperature."""
        dimensions = {name: parameter.dim() for name, parameter in model.named_parameters()}
        return [name for name in super().get_decay_parameter_names(model) if dimensions.get(name, 0) > 1]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum of the objectives' losses; they and the metrics are kept for the next line of the log."""
        outputs = model(**inputs)
        averages = self._averages["train" if model.training else "eval"]
        for name, value in outputs.items():
            if name.startswith("loss_"):
                averages.add(name, value)
        for name, count in outputs.metric_counts.items():
            averages.add(name, outputs[name], count)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in Transformers, with the objectives' losses and metrics beside the sum."""
        if "loss" in logs:
            logs = {**logs, **self._averages["train"].pop(self.accelerator)}
        super().log(logs, start_time)

    # ---------------------------------------------------------------- evaluation

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[torch.Tensor, None, None]:
        """The loss alone; what the objectives say is averaged over the whole evaluation."""
        inputs = {name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """As in Transformers, with the objectives' losses and metrics among the metrics."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        averages = self._averages["eval"].pop(self.accelerator)
        metrics: Any = output.metrics
        metrics.update({f"{metric_key_prefix}_{name}": value for name, value in averages.items()})
        return output


def build_collator(processor: Any, args: LyricsPretrainingArguments, config: Any) -> LyricsPretrainingCollator:
    """The collator that `args` describe, for a model of `config`."""
    return LyricsPretrainingCollator(
        processor,
        mask_probability=args.mask_probability,
        mask_unit=args.mask_unit,  # pyright: ignore[reportArgumentType]
        seed=args.seed if args.data_seed is None else args.data_seed,
        use_objects=config.mqformer_config.num_grounding_queries > 0,
        max_spatial_tokens=args.max_spatial_tokens,
        max_caption_tokens=args.max_caption_tokens,
        image_column=args.image_column,
        caption_column=args.caption_column,
    )
