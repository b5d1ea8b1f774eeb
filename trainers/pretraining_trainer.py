"""LyricsPretrainingTrainer: Transformers' trainer for the four objectives of the first stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from .averages import RunningAverages
from .checkpointing import CompleteCheckpoints
from .data import DatasetsSource, MapRows, Position, ShardSource, StreamRows, load_positions, save_positions
from .pretraining_arguments import LyricsPretrainingArguments
from .pretraining_collator import LyricsPretrainingCollator

logger = logging.get_logger(__name__)


class LyricsPretrainingTrainer(CompleteCheckpoints, Trainer):
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
        self._recent: list[tuple[list[str], torch.Tensor]] = []  # samples and losses since the last optimizer step
        self._positions: dict[int, Position] = {}  # of this rank's streams, the last used one last
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=self._rows(train_dataset, args, streams=True),
            eval_dataset=(
                {name: self._rows(one, args) for name, one in eval_dataset.items()}
                if isinstance(eval_dataset, dict)
                else self._rows(eval_dataset, args)
            ),
            processing_class=processing_class,
            **kwargs,
        )
        if isinstance(self.train_dataset, StreamRows):
            args.ignore_data_skip = True  # a stream goes on where it was
            self.train_dataset.rank, self.train_dataset.num_ranks = args.process_index, args.world_size
        self.add_callback(_AroundSteps(self))

    def _rows(self, dataset: Any, args: LyricsPretrainingArguments, streams: bool = False) -> Any:
        """A data set whose rows come out prepared."""
        if dataset is None or isinstance(dataset, MapRows | StreamRows):
            return dataset
        settings: dict[str, Any] = {"on_bad_row": args.on_bad_row, "seed": self.collator.seed}
        if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
            return MapRows(dataset, self.collator.prepare, **settings)
        if not streams:
            raise ValueError(
                f"eval_dataset must have a length and be read by index, and {type(dataset).__name__} does not: every "
                "process must make as many steps. Take some rows of the stream into a list."
            )
        source: ShardSource = dataset if hasattr(dataset, "read") else DatasetsSource(dataset)
        return StreamRows(source, self.collator.prepare, block_size=args.shuffle_block, **settings)

    def get_train_dataloader(self) -> DataLoader:
        """As in Transformers; a stream divides itself among processes and workers, and accelerate leaves it alone."""
        if not isinstance(self.train_dataset, StreamRows):
            return super().get_train_dataloader()
        workers = self.args.dataloader_num_workers
        return DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=self.collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=self.args.dataloader_persistent_workers and workers > 0,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
            generator=torch.Generator(),  # so that a new iterator takes nothing from the numbers that dropout draws
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As in Transformers, with the last, smaller batch as well."""
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = drop_last

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Weights that decay: matrices and queries, and no bias, norm or temperature."""
        dimensions = {name: parameter.dim() for name, parameter in model.named_parameters()}
        return [name for name in super().get_decay_parameter_names(model) if dimensions.get(name, 0) > 1]

    # ---------------------------------------------------------------- steps

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """As in Transformers; it also remembers whose loss it is, and how far the stream has been used."""
        samples, position = inputs.pop("samples"), inputs.pop("position", None)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._recent.append((samples, loss))
        if position is not None:
            self._positions.pop(position.stream, None)
            self._positions[position.stream] = position
        return loss

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

    def stream_epoch(self) -> float:
        """How often the stream that was used last has been read, to the nearest shard."""
        position = next(reversed(self._positions.values()))
        streams = self.args.world_size * max(1, self.args.dataloader_num_workers)
        rows: Any = self.train_dataset
        shards = len(range(position.stream, len(rows.source.names), streams))
        return position.epoch + position.shard / shards

    def stop_at_bad_loss(self) -> None:
        """Called before each optimizer step.

        Raises:
            FloatingPointError: when a loss since the last step is not finite, with step, ranks and samples.
        """
        recent, self._recent = self._recent, []
        is_bad = ~torch.stack([loss for _, loss in recent]).isfinite()
        count: Any = self.accelerator.reduce(is_bad.sum(), "sum")
        if not count.item():
            return
        rank = self.args.process_index
        found = [(rank, loss.item(), samples) for samples, loss in recent if not loss.isfinite()]
        found = gather_object(found)
        details = "; ".join(f"rank {rank}: loss {loss}, samples {', '.join(samples)}" for rank, loss, samples in found)
        raise FloatingPointError(
            f"The loss of step {self.state.global_step + 1} is not finite, so the step was not taken ({details}). The "
            "weights are those of the step before; look at these samples, or lower the learning rate."
        )

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
        inputs = {name: value for name, value in inputs.items() if name not in ("samples", "position")}
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

    # ---------------------------------------------------------------- state

    def _save_rng_state(self, output_dir: str) -> None:
        """With the random state of a rank goes the place where its streams go on."""
        super()._save_rng_state(output_dir)
        if isinstance(self.train_dataset, StreamRows):
            file = Path(output_dir) / f"stream_{self.args.process_index}.json"
            save_positions(file, list(self._positions.values()), self.args.dataloader_num_workers)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """See `CompleteCheckpoints.train`; streams go on where the checkpoint left them."""
        self._recent, self._positions = [], {}
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _find_resumable(self, resume: str | bool) -> str:
        folder = super()._find_resumable(resume)
        if isinstance(self.train_dataset, StreamRows):
            workers = self.args.dataloader_num_workers
            positions = load_positions(Path(folder) / f"stream_{self.args.process_index}.json", workers)
            self.train_dataset.go_on(positions, workers)
            self._positions = {position.stream: position for position in positions}
        return folder


class _AroundSteps(TrainerCallback):
    """What must happen before an epoch and around an optimizer step, on every rank."""

    def __init__(self, trainer: LyricsPretrainingTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the data set; accelerate tells it on one process alone."""
        if isinstance(self.trainer.train_dataset, MapRows):
            self.trainer.train_dataset.set_epoch(int((state.epoch or 0) + 1e-6))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """How often a stream has been read, which Transformers cannot know."""
        if isinstance(self.trainer.train_dataset, StreamRows):
            state.epoch = self.trainer.stream_epoch()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop before a step on a loss that is not finite."""
        self.trainer.stop_at_bad_loss()


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
