"""Data sets with a column `visual_objects`, which is read from a store when a row is."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from torch.utils.data import Dataset, IterableDataset

from ..datasets_lyrics.hf_datasets import find_image_column
from ..datasets_lyrics.path_guard import PathGuard, read_image_value
from ..processing_lyrics import VisualObjects
from ..processing_lyrics.protocols import ObjectStore
from .storage.errors import StoreError
from .storage.finalize import FAILURES
from .storage.rows import Row

COLUMN = "visual_objects"

Missing = Literal["raise", "none"]


class KeyedObjectStore(ObjectStore, Protocol):
    """Store of visual objects that are found by key or by image; `RefinementStore` is one."""

    @property
    def failure_count(self) -> int:
        """Number of images that could not be refined."""
        ...

    def lookup(self, picture: Any) -> VisualObjects | None:
        """Return the objects of an image or of its file, or `None`."""
        ...

    def row(self, key: str, picture: Any = None) -> Row | None:
        """Return the row of a key, checked against the image if one is given, or `None`."""
        ...


@dataclass(frozen=True)
class ObjectsOfRow:
    """Function from a row to the visual objects of its image, or to a list of them for a list of images.

    Attributes:
        store: store of visual objects.
        image: str, column with the images.
        key: str, column with the keys; `None` finds images by their pixels.
        guard: rule for the paths of images.
        check: bool, whether to compare the image of a key with the refined one.
        missing: `"raise"` or `"none"`, treatment of an image that is not in the store.
    """

    store: KeyedObjectStore
    image: str | None
    key: str | None
    guard: PathGuard
    check: bool
    missing: Missing

    def __call__(self, row: Mapping[str, Any]) -> VisualObjects | list[VisualObjects | None] | None:
        """Return the objects of one row.

        Raises:
            StoreError: when the objects are missing, stale or damaged.
        """
        value = None if self.image is None else row[self.image]
        if value is None and self.image is not None:  # a row of text alone
            return None
        name = None if self.key is None else str(row[self.key])
        if not isinstance(value, list):
            return self._find(name, value)
        names = [name if name is None or len(value) == 1 else f"{name}#{number}" for number in range(len(value))]
        return [self._find(*one) for one in zip(names, value, strict=True)]

    def add(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row with its objects."""
        return {**row, COLUMN: self(row)}

    def add_to_batch(self, batch: Mapping[str, list[Any]]) -> dict[str, Any]:
        """Return a batch of rows, as lists by column, with their objects."""
        rows = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
        return {**batch, COLUMN: [self(row) for row in rows]}

    def _find(self, key: str | None, value: Any) -> VisualObjects | None:
        picture, error = (None, None) if value is None else read_image_value(value, self.guard)
        if error is not None:
            raise StoreError(error)
        if key is None:
            found = self.store.lookup(picture)
        else:
            row = self.store.row(key, picture if self.check else None)
            found = None if row is None else row.objects
        if found is None and self.missing == "raise":
            name = "An image" if key is None else repr(key)
            raise StoreError(
                f"{name} is not in {self.store}. Images that could not be refined: {self.store.failure_count:,} "
                f"(see {FAILURES} there). To go on without: missing='none'."
            )
        return found


def attach_objects(dataset: Any, objects: ObjectsOfRow) -> Any:
    """Return a data set with the column; see `RefinementStore.attach`."""
    datasets: Any = sys.modules.get("datasets")  # imported already if the data set is of that library
    is_table = datasets is not None and isinstance(dataset, datasets.Dataset)
    is_stream = datasets is not None and isinstance(dataset, datasets.IterableDataset)
    if objects.image is None and (objects.check or objects.key is None):
        found = find_image_column(dataset, None, objects.key) if is_table or is_stream else "image"
        objects = replace(objects, image=found)
    if is_table:
        kind, options = dataset.format["type"], dataset.format["format_kwargs"]
        if kind not in (None, "custom"):
            raise ValueError(f"The data set gives rows in the format {kind!r}: attach the store before `with_format`.")
        return dataset.with_transform(_Transform(objects, options.get("transform")))
    if is_stream:
        return dataset.map(objects.add)
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return AttachedDataset(dataset, objects)
    return AttachedStream(dataset, objects)


class AttachedDataset(Dataset):
    """Map-style data set of dictionaries with visual objects."""

    def __init__(self, dataset: Any, objects: ObjectsOfRow) -> None:
        self.dataset, self.objects = dataset, objects

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        return self.objects.add(self.dataset[index])


class AttachedStream(IterableDataset):
    """Iterable of dictionaries with visual objects."""

    def __init__(self, dataset: Iterable[Mapping[str, Any]], objects: ObjectsOfRow) -> None:
        self.dataset, self.objects = dataset, objects

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.objects.add, self.dataset)


@dataclass(frozen=True)
class _Transform:
    """Transform that adds objects to a batch after the data set's own transform; pickles, for workers of a loader."""

    objects: ObjectsOfRow
    before: Any

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        return self.objects.add_to_batch(batch if self.before is None else self.before(batch))
