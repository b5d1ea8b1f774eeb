"""Sampler of rows of similar length, so that batches hold little padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.utils import logging

from ...datasets_lyrics.hf_datasets import holds_images
from ...utils.seeding import generator
from .datasets import MapRows

logger = logging.get_logger(__name__)


class GroupedByLength(Sampler):
    """Transformers' grouping by length, in an order that is drawn from (seed, epoch), so that a run can resume.

    Args:
        rows: `MapRows`, whose epoch is followed.
        lengths: list of ints, one for each row.
        batch_size: int, rows of an optimizer step.
        seed: int, seed of the order.
    """

    def __init__(self, rows: MapRows, lengths: list[int], batch_size: int, seed: int) -> None:
        self.rows, self.lengths, self.batch_size, self.seed = rows, lengths, batch_size, seed

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = generator(self.seed, self.rows.epoch, "all", "length groups").integers(2**31)
        order = get_length_grouped_indices(
            self.lengths, self.batch_size, generator=torch.Generator().manual_seed(int(draw))
        )
        return iter(order)


def measure_rows(rows: MapRows, measure: Callable[[Mapping[str, Any]], int], length_column: str) -> list[int]:
    """Return the length of every row.

    Args:
        rows: `MapRows`, whose data set is read, without its images where it has columns.
        measure: function of a row, returns its length. A row that raises `ValueError` counts as 0, and is named when
            it is trained on.
        length_column: name of a column of lengths, which is used where the data set has it.
    """
    dataset = rows.dataset
    columns = list(getattr(dataset, "column_names", None) or [])
    if length_column in columns:
        return list(dataset[length_column])
    if columns and hasattr(dataset, "select_columns"):
        dataset = dataset.select_columns([name for name in columns if not holds_images(dataset.features[name])])
    lengths = []
    for index in logging.tqdm(range(len(dataset)), desc="Measuring rows"):
        try:
            lengths.append(measure(dataset[index]))
        except ValueError:
            lengths.append(0)
    return lengths
