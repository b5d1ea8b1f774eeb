"""LyricsDPOTrainer: preference tuning with TRL's `DPOTrainer`, plus atomic checkpoints and self-describing adapters.

TRL passes no further columns to the processor. So it refines the images of each batch, or finds them in its store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from torch.utils.data import DataLoader
from trl import DPOConfig, DPOTrainer

from .common.adapter_saving import TunedAdapterMixin
from .common.checkpointing import AtomicCheckpointMixin
from .common.data_arguments import hint_at_store
from .common.trainable_parts import TuningArguments


@dataclass
class LyricsDPOConfig(TuningArguments, DPOConfig):
    """TRL's `DPOConfig`, with trainable parts. By default LoRA alone is trained, and the connector is frozen."""

    max_length: int | None = field(default=None, metadata={"help": "No limit: TRL would cut inside an image."})
    train_mqformer: bool = field(default=False, metadata={"help": "Train the MQ-Former in full."})
    train_projection: bool = field(default=False, metadata={"help": "Train the projection in full."})


class LyricsDPOTrainer(AtomicCheckpointMixin, TunedAdapterMixin, DPOTrainer):  # pyright: ignore[reportIncompatibleMethodOverride]
    """TRL's `DPOTrainer` for a `LyricsForConditionalGeneration`, with the arguments of `TunedAdapterMixin`.

    Datasets are of the `datasets` library, with the columns `images`, `prompt`, `chosen` and `rejected`. The processor
    has a refiner or a store.
    """

    args: LyricsDPOConfig

    def get_train_dataloader(self) -> DataLoader:
        """Return TRL's loader, and hint at a store where images will be refined."""
        processor: Any = self.processing_class
        hint_at_store(processor)
        return super().get_train_dataloader()


def to_dataset(rows: Dataset | Sequence[Mapping[str, Any]]) -> Dataset:
    """Convert rows to a dataset of the `datasets` library, which TRL's trainer requires; no rows are a `ValueError`."""
    if not len(rows):
        raise ValueError("There is no row: the data are empty.")
    if isinstance(rows, Dataset):
        return rows
    return Dataset.from_list([dict(rows[index]) for index in range(len(rows))])
