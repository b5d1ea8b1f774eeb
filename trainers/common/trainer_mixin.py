"""What the trainers of both stages have in common: rows that come out prepared, and runs that can be explained.

`TrainsPreparedRows` is mixed in before a trainer of Transformers or TRL. Its collator has `prepare(row, sample,
epoch)`, which reads one row, and gives batches that name their `samples` and, of streams, the `position` after them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback

from ...datasets_lyrics.hf_datasets import DatasetsSource
from ..data.datasets import (
    NOT_FOR_THE_MODEL,
    MapRows,
    Position,
    ShardSource,
    StreamRows,
    load_positions,
    save_positions,
)
from .checkpointing import CompleteCheckpoints


class TrainsPreparedRows(CompleteCheckpoints, Trainer if TYPE_CHECKING else object):
    """Mixed in before a trainer; its `__init__` sets `collator` before anything else, and calls `_watch` at its end."""

    collator: Any
    _recent: list[tuple[list[str], torch.Tensor]]  # samples and losses since the last optimizer step
    _positions: dict[int, Position]  # of this rank's streams, the last used one last
    _replaced: int  # rows that could not be used; of this rank since the last step, and of all ranks before
    _all_replaced: int

    def prepare_rows(self, dataset: Any, args: Any, streams: bool = False) -> Any:
        """A data set whose rows come out prepared; several by name stay several.

        Raises:
            ValueError: for a stream, unless `streams` allows it.
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
                "process must make as many steps. Take some rows of the stream into a list."
            )
        source: ShardSource = dataset if hasattr(dataset, "read") else DatasetsSource(dataset)
        ranks = {"rank": args.process_index, "num_ranks": args.world_size}
        args.ignore_data_skip = True  # a stream goes on where it was
        return StreamRows(source, self.collator.prepare, block_size=args.shuffle_block, **settings, **ranks)

    def _watch(self) -> None:
        """Begin to remember what is used; the end of `__init__`."""
        self._forget()
        self.add_callback(_AroundSteps(self))

    def _forget(self) -> None:
        self._recent, self._positions = [], {}
        self._replaced = self._all_replaced = 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in Transformers; where rows could not be used, with their number since the run began or went on."""
        if self._all_replaced and "loss" in logs:
            logs = {**logs, "replaced_rows": self._all_replaced}
        super().log(logs, start_time)

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

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """As in Transformers; it also remembers whose loss it is, and how far the stream has been used."""
        samples, position, replaced = (inputs.pop(name, None) for name in NOT_FOR_THE_MODEL)
        self._replaced += replaced or 0
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._recent.append((samples, loss))
        if position is not None:
            self._positions.pop(position.stream, None)
            self._positions[position.stream] = position
        return loss

    def stream_epoch(self) -> float:
        """How often the stream that was used last has been read, to the nearest shard."""
        position = next(reversed(self._positions.values()))
        streams = self.args.world_size * max(1, self.args.dataloader_num_workers)
        rows: Any = self.train_dataset
        shards = len(range(position.stream, len(rows.source.names), streams))
        return position.epoch + position.shard / shards

    def stop_at_bad_loss(self) -> None:
        """Called before each optimizer step; it also counts the rows that were replaced on all ranks.

        Raises:
            FloatingPointError: when a loss since the last step is not finite, with step, ranks and samples.
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
            f"The loss of step {self.state.global_step + 1} is not finite, so the step was not taken ({details}). The "
            "weights are those of the step before; look at these samples, or lower the learning rate."
        )

    def _save_rng_state(self, output_dir: str) -> None:
        """With the random state of a rank goes the place where its streams go on."""
        super()._save_rng_state(output_dir)
        if isinstance(self.train_dataset, StreamRows):
            file = Path(output_dir) / f"stream_{self.args.process_index}.json"
            save_positions(file, list(self._positions.values()), self.args.dataloader_num_workers)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """See `CompleteCheckpoints.train`; streams go on where the checkpoint left them."""
        self._forget()
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

    def __init__(self, trainer: TrainsPreparedRows) -> None:
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
