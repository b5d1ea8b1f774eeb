"""Arguments about data: those that both stages add to `TrainingArguments`, and those of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments
from transformers.utils import logging

from ...datasets_lyrics.open_data import open_rows
from ...processing_lyrics import LyricsProcessor
from ...refinement import RefinementStore
from .run_settings import require_steps

logger = logging.get_logger(__name__)


@dataclass
class RowArguments(TrainingArguments if TYPE_CHECKING else object):
    """Mixin for a `TrainingArguments`: how rows are read, and defaults for collators that prepare rows."""

    dataloader_drop_last: bool = field(default=True, metadata={"help": "Drop the last, smaller batch of an epoch."})
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "Pin memory, for faster copies to a GPU."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator selects the columns it needs."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Off: a loss that is not finite stops the run."}
    )
    on_bad_row: str = field(
        default="raise",
        metadata={"help": "For a row that cannot be used: 'raise' stops the run, 'replace' warns and uses another."},
    )
    shuffle_block: int = field(default=256, metadata={"help": "Rows of a shard that are shuffled together."})

    @property
    def row_seed(self) -> int:
        """Seed of all random draws about rows: `data_seed`, or `seed` if it is `None`."""
        return self.seed if self.data_seed is None else self.data_seed

    def __post_init__(self) -> None:
        super().__post_init__()
        require_steps(self)
        require_one_of("on_bad_row", self.on_bad_row, ("raise", "replace"))
        accelerator_config: Any = self.accelerator_config
        accelerator_config.dispatch_batches = False  # it would slice tensors whose first dimension is images, not rows


def hint_at_store(processor: LyricsProcessor) -> None:
    """Log once in a process that images are refined while the model trains, and what would save the time."""
    if processor.has_refiner and processor.store is None:
        logger.warning_once(
            "Images without stored objects are refined while the model trains, in every epoch again. To save the time, "
            "refine them once (`lyrics refine-dataset DATA --out STORE`), and train with `--store STORE`."
        )


def require_one_of(name: str, value: str, values: tuple[str, ...]) -> None:
    """Raise a `ValueError` that lists the allowed values, unless `value` is one of them."""
    if value not in values:
        raise ValueError(f"{name} must be one of {values}, got {value!r}.")


def require_shares(settings: Any, *names: str) -> None:
    """Raise a `ValueError` that names the first of these attributes of `settings` that is not in [0, 1]."""
    for name in names:
        if not 0 <= (share := getattr(settings, name)) <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {share}.")


@dataclass
class DataArguments:
    """Arguments of the command line: the data sets of a run, in either stage."""

    train_data: str | None = field(
        default=None,
        metadata={
            "help": "File (.jsonl, .ndjson, .json, .csv, .parquet), tar shards, folder, saved or Hub data set; a data "
            "set of `lyrics data list` as NAME:ROOT; a mixture (.yaml); or drawn rows: shapes:N (captions), chats:N "
            "(conversations), pairs:N (preferences)."
        },
    )
    eval_data: str | None = field(default=None, metadata={"help": "Data for evaluation, in the same forms."})
    store: str | None = field(
        default=None, metadata={"help": "Store of `lyrics refine-dataset`, to look objects up in."}
    )
    image_root: str | None = field(
        default=None, metadata={"help": "Folder of the images, which no path leaves (default: the folder of the data)."}
    )
    fetch_urls: bool = field(default=False, metadata={"help": "Allow rows to name URLs of images, which are fetched."})
    train_split: str = field(default="train", metadata={"help": "Split of train_data."})
    eval_split: str = field(default="validation", metadata={"help": "Split of eval_data."})
    streaming: bool = field(default=False, metadata={"help": "Read train_data as a stream; needs max_steps."})

    def open(self, **columns: str) -> tuple[Any, Any]:
        """Open the rows for training and for evaluation; it takes seconds, so do it before a model is built.

        Args:
            columns: `image_column` and `caption_column` of the rows.

        Returns:
            Rows for training, and rows for evaluation or `None`.

        Raises:
            ValueError: if there are no training data, or they or the store cannot be read.
        """
        if self.train_data is None:
            raise ValueError("no training data: give --train_data, or a recipe that names it.")
        if self.store is not None:
            RefinementStore.open(self.store)
        where: dict[str, Any] = {"image_root": self.image_root, "fetch_urls": self.fetch_urls, **columns}
        where["need_captions"] = "caption_column" in columns
        train_rows = open_rows(self.train_data, split=self.train_split, streaming=self.streaming, **where)
        if self.eval_data is None:
            return train_rows, None
        return train_rows, open_rows(self.eval_data, split=self.eval_split, **where)

    def attach_store(self, processor: LyricsProcessor) -> None:
        """Attach the store to the processor that finds the objects of images.

        Raises:
            ValueError: if there is no such store, or it is that of another refiner.
        """
        if self.store is not None:
            processor.store = RefinementStore.open(self.store)
