"""What both stages' arguments say about rows, beside Transformers' `TrainingArguments`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments


@dataclass
class RowArguments(TrainingArguments if TYPE_CHECKING else object):
    """Mixed in before a `TrainingArguments`: how rows are read, and defaults that fit collators which read rows."""

    dataloader_drop_last: bool = field(
        default=True, metadata={"help": "Leave out the last batch of an epoch where it is smaller than the others."}
    )
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "Speed up the way to a GPU, where there is one."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads the columns it needs."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "A loss that is not finite stops the run, so that nothing is filtered."}
    )
    on_bad_row: str = field(
        default="raise",
        metadata={
            "help": "At a row that cannot be used: 'raise' stops and names it; 'replace' names it and takes another."
        },
    )
    shuffle_block: int = field(default=256, metadata={"help": "Rows of a shard that are held and shuffled together."})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("on_bad_row", self.on_bad_row, ("raise", "replace"))
        accelerator_config: Any = self.accelerator_config
        accelerator_config.dispatch_batches = False  # it would cut tensors whose first dimension is not the row


def require_one_of(name: str, value: str, values: tuple[str, ...]) -> None:
    """Raise a `ValueError` that says which values there are."""
    if value not in values:
        raise ValueError(f"{name} must be one of {values}, got {value!r}.")
