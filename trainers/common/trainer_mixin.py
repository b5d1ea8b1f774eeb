"""Base of the trainers of both stages: prepared rows, exact resumption of streams, and a stop at bad losses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer_utils import TrainOutput

from ...datasets_lyrics.hf_datasets import DatasetsSource
from ..data.datasets import (
    NOT_FOR_THE_MODEL,
    MapRows,
    Position,
    StreamRows,
    load_positions,
    save_positions,
)
from .checkpointing import AtomicCheckpointMixin
from .data_arguments import RowArguments


class PreparedRowsMixin(AtomicCheckpointMixin, Trainer if TYPE_CHECKING else object):
    """Trainer mixin that reads prepared rows, resumes streams where they stopped, and stops at bad losses.

    It stands before a trainer of Transformers or TRL, whose `__init__` sets `collator` first and calls `_watch` last.
    """

    args: Any  # with the fields of `RowArguments`
    collator: Any  # with `seed` and `prepare`; its batches have the entries of `describe_rows`
    _recent: list[tuple[list[str], torch.Tensor]]  # samples and losses since the last optimizer step
    _positions: dict[int, Position]  # of this rank's streams, the most recently used last
    _sources: list[str] | None = None  # names of the data sets of the rows of the micro-batch
    _replaced: int  # rows of this rank that were replaced since the last optimizer step
    _all_replaced: int  # rows of all ranks that were replaced before it

    def prepare_rows(self, dataset: Any, args: RowArguments, streams: bool = False) -> Any:
        """Wrap a dataset, or each of a dictionary of datasets, so that it yields prepared rows.

        Args:
            dataset: map-style dataset, `datasets.IterableDataset`, `ShardSource`, dictionary of these, or `None`.
            args: training arguments.
            streams: whether datasets without a length are allowed.

        Raises:
            ValueError: for a dataset without a length, unless `streams` is set.
        """
        if dataset is None or isinstance(dataset, MapRows | StreamRows):
            return dataset
        if isinstance(dataset, dict):
            return {name: self.prepare_rows(one, args, streams) for name, one in dataset.items()}
        settings: dict[str, Any] = {"on_bad_row": args.on_bad_row, "seed": self.collator.seed}
        if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
            return MapRows(dataset, self.collator.prepare, **settings)
        if not streams:
            raise ValueError(
                f"eval_dataset must have a length and be read by index, and {type(dataset).__name__} does not: every "
                "process must take the same number of steps. Collect some rows of the stream in a list."
            )
        source: Any = dataset if hasattr(dataset, "read") else DatasetsSource(dataset)
        args.ignore_data_skip = True  # a stream resumes at its own position
        settings |= {"block_size": args.shuffle_block, "rank": args.process_index, "num_ranks": args.world_size}
        return StreamRows(source, self.collator.prepare, **settings)

    def _watch(self) -> None:
        """Start to record the rows that are used; called at the end of `__init__`."""
        self._reset_records()
        self.add_callback(_StepCallback(self))

    def _reset_records(self) -> None:
        self._recent, self._positions = [], {}
        self._replaced = self._all_replaced = 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as in Transformers, with the number of rows that were replaced since the run started or resumed."""
        if self._all_replaced and "loss" in logs:
            logs = {**logs, "replaced_rows": self._all_replaced}
        super().log(logs, start_time)

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of Transformers, or for a stream one that accelerate does not shard a second time."""
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
            generator=torch.Generator(),  # its own, so that a new iterator does not advance the one that dropout uses
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return the loader of Transformers with the last, smaller batch, also for rows that are not prepared."""
        rows = eval_dataset if isinstance(eval_dataset, str) else self.prepare_rows(eval_dataset, self.args)
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(rows)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Prepare a batch as in Transformers, without the description of its rows."""
        return super()._prepare_inputs({name: one for name, one in inputs.items() if name not in NOT_FOR_THE_MODEL})

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run a step as in Transformers, and record its samples, its loss and the position of its stream."""
        samples, position, replaced, self._sources = (inputs.get(name) for name in NOT_FOR_THE_MODEL)
        self._replaced += replaced or 0
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._recent.append((samples or [], loss))
        if position is not None:
            self._positions.pop(position.stream, None)  # so that it becomes the last one
            self._positions[position.stream] = position
        return loss

    def stream_epoch(self) -> float:
        """Return how often the most recently used stream has been read, rounded down to a shard."""
        position = next(reversed(self._positions.values()))
        streams = self.args.world_size * max(1, self.args.dataloader_num_workers)
        rows: Any = self.train_dataset
        shards = len(range(position.stream, len(rows.source.names), streams))
        return position.epoch + position.shard / shards

    def check_losses(self) -> None:
        """Check all losses since the last optimizer step, and count the rows that were replaced on all ranks.

        Raises:
            FloatingPointError: if a loss is not finite; the message names the step, the ranks and the samples.
        """
        recent, self._recent = self._recent, []
        is_bad = ~torch.stack([loss for _, loss in recent]).isfinite()
        counts: Any = torch.stack([is_bad.sum(), torch.tensor(self._replaced, device=is_bad.device)])
        summed: Any = self.accelerator.reduce(counts, "sum")
        num_bad, num_replaced = summed.tolist()
        self._all_replaced, self._replaced = self._all_replaced + num_replaced, 0
        if not num_bad:
            return
        rank = self.args.process_index
        found = [(rank, loss.item(), samples) for samples, loss in recent if not loss.isfinite()]
        found = gather_object(found)
        details = "; ".join(f"rank {rank}: loss {loss}, samples {', '.join(samples)}" for rank, loss, samples in found)
        raise FloatingPointError(
            f"The loss of step {self.state.global_step + 1} is not finite, so the optimizer step was not taken "
            f"({details}). The weights are those of the step before. Look at these samples, or lower the learning rate."
        )

    def _save_rng_state(self, output_dir: str) -> None:
        """Save the random state of a rank, and the positions of its streams."""
        super()._save_rng_state(output_dir)
        if isinstance(self.train_dataset, StreamRows):
            file = Path(output_dir) / f"stream_{self.args.process_index}.json"
            save_positions(file, list(self._positions.values()), self.args.dataloader_num_workers)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train as `AtomicCheckpointMixin.train`; streams resume where the checkpoint left them."""
        self._reset_records()
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _find_resumable(self, resume: str | bool) -> str:
        folder = super()._find_resumable(resume)
        if isinstance(self.train_dataset, StreamRows):
            workers = self.args.dataloader_num_workers
            positions = load_positions(Path(folder) / f"stream_{self.args.process_index}.json", workers)
            self.train_dataset.go_on(positions, workers)
            self._positions = {position.stream: position for position in positions}
        return folder


class _StepCallback(TrainerCallback):
    """Hooks before an epoch and around an optimizer step, on every rank."""

    def __init__(self, trainer: PreparedRowsMixin) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Set the epoch of the dataset; accelerate sets it in a single process only."""
        if isinstance(self.trainer.train_dataset, MapRows):
            self.trainer.train_dataset.set_epoch(int((state.epoch or 0) + 1e-6))

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Set the epoch of a stream, whose length Transformers does not know."""
        if isinstance(self.trainer.train_dataset, StreamRows):
            state.epoch = self.trainer.stream_epoch()

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Stop before the optimizer uses a loss that is not finite."""
        self.trainer.check_losses()
