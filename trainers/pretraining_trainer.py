"""LyricsPretrainingTrainer: Transformers' trainer for the four objectives of the first stage."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from ..modeling_lyrics import LyricsForPreTraining
from ..processing_lyrics import LyricsProcessor
from ..utils.model_card import BaseModel
from .common.run_facts import find_bases
from .common.trainer_mixin import PreparedRowsMixin
from .data.source_losses import losses_of_mixture
from .pretraining_collator import LyricsPretrainingCollator
from .pretraining_config import LyricsPretrainingArguments


class LyricsPretrainingTrainer(PreparedRowsMixin, Trainer):
    """Trainer of the first stage: alignment of a `LyricsForPreTraining` on images with captions and objects.

    Losses and metrics of the objectives are logged beside the total loss, averaged over micro-batches and processes.
    For a mixture the losses of each data set are logged too, such as `loss_itc_textcaps`: the mean over its rows, pairs
    or tokens, whichever the objective counts. A loss that is not finite stops the run before the optimizer uses it. The
    vision encoder is frozen and stays in evaluation mode, unless `args.train_vision_model` is set.

    Args:
        model: model to be trained.
        args: training arguments.
        train_dataset: map-style dataset, `Mixture`, `datasets.IterableDataset` or `TarSource`, whose rows have an image
            and a caption. Streams need `max_steps`.
        eval_dataset: map-style dataset of such rows, or a dictionary of several.
        processing_class: processor; saved with the model, without its refiner.
        data_collator: collator; by default a `LyricsPretrainingCollator` with the settings of `args`.
        kwargs: further arguments of Transformers' trainer (`callbacks`, `optimizers`, ...).

    Raises:
        ValueError: if there is neither `data_collator` nor `processing_class`, or `eval_dataset` is a stream.
    """

    stage_name = "alignment of images with captions and objects (first stage)"
    args: LyricsPretrainingArguments
    collator: LyricsPretrainingCollator
    loss_is_scaled_for_ga = False  # losses are means of a micro-batch

    def __init__(
        self,
        model: LyricsForPreTraining,
        args: LyricsPretrainingArguments,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: LyricsProcessor | None = None,
        data_collator: LyricsPretrainingCollator | None = None,
        **kwargs: Any,
    ) -> None:
        if data_collator is None:
            if processing_class is None:
                raise ValueError("LyricsPretrainingTrainer needs a processing_class (a LyricsProcessor).")
            data_collator = LyricsPretrainingCollator(
                processing_class,
                mask_probability=args.mask_probability,
                mask_unit=args.mask_unit,  # pyright: ignore[reportArgumentType]
                seed=args.row_seed,
                use_objects=model.config.mqformer_config.num_grounding_queries > 0,
                max_spatial_tokens=args.max_spatial_tokens,
                max_caption_tokens=args.max_caption_tokens,
                caption_only_probability=args.caption_only_probability,
                image_column=args.image_column,
                caption_column=args.caption_column,
            )
        model.model.vision_model.requires_grad_(args.train_vision_model)
        model.set_recomputation(args.recomputation)
        self.collator = data_collator
        parts = (model, model.model.vision_model, model.model.mqformer)
        self._places = [part.name_or_path for part in parts]  # before they are saved elsewhere
        self._averages = {"train": _RunningAverages(), "eval": _RunningAverages()}
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=self.prepare_rows(train_dataset, args, streams=True),
            eval_dataset=self.prepare_rows(eval_dataset, args),
            processing_class=processing_class,  # pyright: ignore[reportArgumentType]
            **kwargs,
        )
        kinds = [f"loss_{name}" for name in model.config.loss_weights()]
        self._losses = losses_of_mixture(train_dataset, self.accelerator.device, kinds)
        self._watch()

    def base_models(self) -> list[BaseModel]:
        """Return the checkpoint that was trained further, or the vision encoder and the MQ-Former that were loaded."""
        return find_bases(
            ("first stage", self._places[0]), ("vision encoder", self._places[1]), ("MQ-Former", self._places[2])
        )

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the names of weights with decay: matrices and queries, but no bias, norm or temperature."""
        dimensions = {name: parameter.dim() for name, parameter in model.named_parameters()}
        return [name for name in super().get_decay_parameter_names(model) if dimensions.get(name, 0) > 1]

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        """Return the weighted sum of the objectives' losses; record them and the metrics for the next log entry."""
        outputs = model(**inputs)
        averages = self._averages["train" if model.training else "eval"]
        for name, value in outputs.items():
            if name.startswith("loss_"):
                averages.add(name, value)
        for name, count in outputs.metric_counts.items():
            averages.add(name, outputs[name], count)
        if model.training and self._losses is not None and self._sources:
            for name, rows in outputs.row_losses.items():
                self._losses.add(self._sources, rows, name)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as in Transformers, with the losses and metrics of the objectives, and those of a mixture's data sets."""
        if "loss" in logs:
            logs = {**logs, **self._averages["train"].pop(self.accelerator)}
            if self._losses is not None:
                logs |= self._losses.pop(self.accelerator)
        super().log(logs, start_time)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, None, None]:
        """Return the loss alone; the losses and metrics of the objectives are averaged over the whole evaluation."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """Evaluate as in Transformers, with the losses and metrics of the objectives among the metrics."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        averages = self._averages["eval"].pop(self.accelerator)
        metrics: Any = output.metrics
        metrics.update({f"{metric_key_prefix}_{name}": value for name, value in averages.items()})
        return output


class _RunningAverages:
    """Means over micro-batches and processes, by name, summed on the device so that no step waits for it.

    Every process must add the same names.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, name: str, mean: torch.Tensor, count: torch.Tensor | int = 1) -> None:
        """Add a mean (scalar) of `count` values."""
        total = torch.stack([mean.detach().double() * count, torch.as_tensor(count, device=mean.device).double()])
        self._sums[name] = self._sums[name] + total if name in self._sums else total

    def pop(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means over all processes since the last call, without names whose count is 0."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        sums: Any = accelerator.reduce(torch.stack([self._sums[name] for name in names]), "sum")
        self._sums = {}
        return {name: total / count for name, (total, count) in zip(names, sums.tolist(), strict=True) if count}
