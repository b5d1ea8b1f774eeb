"""LyricsDPOTrainer: preference tuning with TRL's `DPOTrainer`, plus atomic checkpoints and self-describing adapters.

TRL passes no further columns to the processor. So it refines the images of each batch, or finds them in its store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from trl import DPOConfig, DPOTrainer

from ..datasets_lyrics.conversations import read_preference_prompt
from ..datasets_lyrics.path_guard import IMAGE_BLOCKS
from ..processing_lyrics import LyricsProcessor
from .common.adapter_saving import TunedAdapterMixin
from .common.checkpointing import AtomicCheckpointMixin
from .common.data_arguments import hint_at_store, require_one_of
from .common.trainable_parts import TuningArguments
from .data.datasets import BadRowError

_COLUMNS = ("prompt", "chosen", "rejected")
_IMAGE_COLUMNS = {"image", "images"}


@dataclass
class LyricsDPOConfig(TuningArguments, DPOConfig):
    """TRL's `DPOConfig`, with trainable parts. By default LoRA alone is trained, and the connector is frozen."""

    max_length: int | None = field(default=None, metadata={"help": "No limit: TRL would cut inside an image."})
    train_mqformer: bool = field(default=False, metadata={"help": "Train the MQ-Former in full."})
    train_projection: bool = field(default=False, metadata={"help": "Train the projection in full."})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("train_sampling_strategy", self.train_sampling_strategy, ("random", "sequential"))


class LyricsDPOTrainer(AtomicCheckpointMixin, TunedAdapterMixin, DPOTrainer):  # pyright: ignore[reportIncompatibleMethodOverride]
    """TRL's `DPOTrainer` for a `LyricsForConditionalGeneration`, with the arguments of `TunedAdapterMixin`.

    Datasets are of the `datasets` library, with the columns `images`, `prompt`, `chosen` and `rejected`. The processor
    has a refiner or a store.
    """

    stage_name = "preference tuning (DPO)"
    args: LyricsDPOConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        processor: Any = self.processing_class
        self.train_dataset = PreferenceRows.wrap(self.train_dataset, processor)
        self.eval_dataset = PreferenceRows.wrap(self.eval_dataset, processor)

    def get_train_dataloader(self) -> DataLoader:
        """Return TRL's loader, and hint at a store where images will be refined."""
        processor: Any = self.processing_class
        hint_at_store(processor)
        return super().get_train_dataloader()


class PreferenceRows(torch.utils.data.Dataset):
    """Rows of preferences whose images are loaded when a row is read, so that a bad one is named with its row.

    Args:
        dataset: dataset with the columns of `LyricsDPOTrainer`.
        processor: processor that loads the images.
    """

    def __init__(self, dataset: Dataset, processor: LyricsProcessor) -> None:
        self.dataset, self.processor = dataset, processor

    @classmethod
    def wrap(cls, dataset: Any, processor: LyricsProcessor) -> Any:
        """Wrap a dataset with images, or each of a dictionary of datasets; other data are returned as they are."""
        if isinstance(dataset, dict):
            return {name: cls.wrap(one, processor) for name, one in dataset.items()}
        has_images = isinstance(dataset, Dataset) and _IMAGE_COLUMNS.intersection(dataset.column_names)
        return cls(dataset, processor) if has_images else dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the row, its images as a list of RGB images in `images`.

        Raises:
            BadRowError: naming the row, its file and the reason.
        """
        try:
            row = dict(self.dataset[index])
            row["prompt"], given = read_preference_prompt(row)
            row.pop("image", None)
            row["images"] = self.processor.load_pictures(given) if given else []
            self._check_template(row)
        except Exception as error:
            raise BadRowError(index, error) from error
        return row

    def _check_template(self, row: Mapping[str, Any]) -> None:
        """Raise a `ValueError` where the chat template refuses a conversation, which TRL renders later."""
        if not isinstance(row["prompt"], str):
            for answer in (row["chosen"], row["rejected"]):
                self.processor.apply_chat_template([*row["prompt"], *answer])


def to_dataset(rows: Dataset | Sequence[Mapping[str, Any]]) -> Dataset:
    """Convert rows to a dataset of the `datasets` library, which TRL's trainer requires.

    Raises:
        ValueError: there is no row, or a column is missing.
    """
    if not hasattr(rows, "__len__"):
        raise ValueError("Preferences are read by index: they can be no stream (`streaming`), and no tar shards.")
    if not len(rows):
        raise ValueError("There is no row: the data are empty.")
    dataset = rows if isinstance(rows, Dataset) else Dataset.from_list([dict(rows[i]) for i in range(len(rows))])
    if missing := [name for name in _COLUMNS if name not in dataset.column_names]:
        raise ValueError(
            f"The rows have no {' and no '.join(map(repr, missing))}: preferences need images, prompt, chosen and "
            f"rejected, and the columns are {', '.join(map(repr, dataset.column_names))}."
        )
    prompts = dataset.select_columns(["prompt"]).with_format(None)
    if not _IMAGE_COLUMNS.intersection(dataset.column_names) and any(map(_holds_image, prompts)):
        return dataset.add_column("images", [None] * len(dataset))  # by which TRL knows data with images
    return dataset


def _holds_image(row: Any) -> bool:
    """Return whether a block of the prompt is an image; what is wrong with a row is said when it is read."""
    messages = row["prompt"] if isinstance(row["prompt"], list) else []
    contents = [message.get("content") for message in messages if isinstance(message, Mapping)]
    blocks = [block for content in contents if isinstance(content, list) for block in content]
    return any(isinstance(block, Mapping) and block.get("type") in IMAGE_BLOCKS for block in blocks)
