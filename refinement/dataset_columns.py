"""Data sets with a `visual_objects` column that is read from a store when a row is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch.utils.data import Dataset, IterableDataset

from ..datasets_lyrics.hf_datasets import find_image_column
from ..datasets_lyrics.path_guard import AS_GIVEN, PathGuard, read_image_value
from .storage.errors import StoreError
from .storage.finalize import FAILURES

if TYPE_CHECKING:
    from .store import RefinementStore

COLUMN = "visual_objects"

Missing = Literal["raise", "none"]


@dataclass(frozen=True)
class ObjectsOfRow:
    """A row -> what the store holds for its picture, or a list for its list of pictures.

    Attributes:
        store: to look in.
        image: the column with the pictures.
        key: the column with the keys; without one, pictures are found by their pixels.
        guard: rule for the paths.
        check: that a key's picture is the one that was refined.
        missing: whether a picture that is not in the store is an error, or `None`.
    """

    store: RefinementStore
    image: str | None
    key: str | None
    guard: PathGuard
    check: bool
    missing: Missing

    def __call__(self, row: Mapping[str, Any]) -> Any:
        """The objects of one row.

        Raises:
            StoreError: when they are not there, are stale, or are damaged.
        """
        value = None if self.image is None else row[self.image]
        name = None if self.key is None else str(row[self.key])
        if not isinstance(value, list):
            return self._find(name, value)
        names = [name if name is None or len(value) == 1 else f"{name}#{number}" for number in range(len(value))]
        return [self._find(*one) for one in zip(names, value, strict=True)]

    def add(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with its objects."""
        return {**row, COLUMN: self(row)}

    def add_to_batch(self, batch: Mapping[str, list[Any]]) -> dict[str, Any]:
        """A batch of rows, as lists by column, with their objects."""
        rows = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
        return {**batch, COLUMN: [self(row) for row in rows]}

    def _find(self, key: str | None, value: Any) -> Any:
        picture, error = (None, None) if value is None else read_image_value(value, self.guard)
        if error is not None:
            raise StoreError(error)
        if key is None:
            found = self.store.lookup(picture)
        else:
            row = self.store.row(key, picture if self.check else None)
            found = None if row is None else row.objects
        if found is None and self.missing == "raise":
            name = "A picture" if key is None else repr(key)
            raise StoreError(
                f"{name} is not in {self.store}. Pictures that could not be refined: "
                f"{self.store.manifest.failure_count:,} (see {FAILURES} there). To go on without: missing='none'."
            )
        return found


def attach(
    store: RefinementStore,
    dataset: Any,
    image: str | None = None,
    key: str | None = None,
    root: str | os.PathLike | None = None,
    check: bool = True,
    missing: Missing = "raise",
) -> Any:
    """See `RefinementStore.attach`."""
    datasets: Any = sys.modules.get("datasets")  # which a data set of that library has imported
    is_table = datasets is not None and isinstance(dataset, datasets.Dataset)
    is_stream = datasets is not None and isinstance(dataset, datasets.IterableDataset)
    if image is None and (check or key is None):
        image = find_image_column(dataset, None, key) if is_table or is_stream else "image"
    guard = AS_GIVEN if root is None else PathGuard.below(root)
    objects = ObjectsOfRow(store, image, key, guard, check, missing)
    if is_table:
        return _transformed(dataset, objects)
    if is_stream:
        return dataset.map(objects.add)
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return AttachedDataset(dataset, objects)
    return AttachedStream(dataset, objects)


class AttachedDataset(Dataset):
    """A map-style data set of dictionaries, with objects."""

    def __init__(self, dataset: Any, objects: ObjectsOfRow) -> None:
        self.dataset, self.objects = dataset, objects

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        return self.objects.add(self.dataset[index])


class AttachedStream(IterableDataset):
    """An iterable of dictionaries, with objects."""

    def __init__(self, dataset: Iterable[Mapping[str, Any]], objects: ObjectsOfRow) -> None:
        self.dataset, self.objects = dataset, objects

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.objects.add, self.dataset)


def _transformed(dataset: Any, objects: ObjectsOfRow) -> Any:
    kind, options = dataset.format["type"], dataset.format["format_kwargs"]
    if kind not in (None, "custom"):
        raise ValueError(f"The data set gives rows in the format {kind!r}: attach the store before `with_format`.")
    return dataset.with_transform(_Transform(objects, options.get("transform")))


@dataclass(frozen=True)
class _Transform:
    """Adds objects to a batch, after the transform that the data set had; pickles, for the workers of a loader."""

    objects: ObjectsOfRow
    before: Any

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        return self.objects.add_to_batch(batch if self.before is None else self.before(batch))
