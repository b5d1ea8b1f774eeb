"""What can be asked of a whole store: is it undamaged, and what is in it?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers.utils import logging

from ..utils.atomic_files import sha256_of
from .storage.errors import StoreError

if TYPE_CHECKING:
    from .store import RefinementStore

MOST_COMMON = 20  # labels


@dataclass(frozen=True)
class StoreStats:
    """What is in a store.

    Attributes:
        pictures: that were refined.
        failures: pictures that could not be.
        bytes: of all its files but the failures.
        objects: in all pictures.
        most_objects: in one picture.
        pictures_without_objects: how many.
        region_feature_type, region_feature_size: of the refiner.
        labels: how many different ones.
        common_labels: the most common ones, and how often each is there.
    """

    pictures: int
    failures: int
    bytes: int
    objects: int
    most_objects: int
    pictures_without_objects: int
    region_feature_type: str
    region_feature_size: int
    labels: int
    common_labels: dict[str, int]

    @property
    def bytes_per_picture(self) -> float:
        """What a picture costs."""
        return self.bytes / max(1, self.pictures)

    @property
    def objects_per_picture(self) -> float:
        """On average."""
        return self.objects / max(1, self.pictures)


def verify(store: RefinementStore) -> int:
    """See `RefinementStore.verify`."""
    others = store.manifest.files.items()
    files = [(shard.path, shard.facts.sha256) for shard in store.shards]
    files += [(store.path / name, sha256) for name, sha256 in others]
    damaged = []
    for path, expected in logging.tqdm(files, desc="Verifying", unit="file", disable=len(files) < 2):
        try:
            if sha256_of(path) != expected:
                damaged.append(f"{path} (its checksum is wrong)")
        except OSError as error:
            damaged.append(f"{path} ({error.strerror})")
    if damaged:
        raise StoreError(
            f"{len(damaged)} of {len(files)} files are damaged: {', '.join(damaged)}. Delete them and refine the same "
            "source again: only what is missing is made."
        )
    return len(files)


def stats(store: RefinementStore) -> StoreStats:
    """See `RefinementStore.stats`."""
    manifest, labels = store.manifest, Counter[str]()
    objects = most = without = 0
    shards = logging.tqdm(store.shards, desc="Counting", unit="shard", disable=len(store.shards) < 2)
    for batch in (batch for shard in shards for batch in shard.open().batches()):
        counts = batch.object_counts()
        objects, most = objects + int(counts.sum()), max(most, int(counts.max(initial=0)))
        without += int((counts == 0).sum())
        labels.update(batch.labels())
    return StoreStats(
        pictures=len(store),
        failures=manifest.failure_count,
        bytes=store.bytes,
        objects=objects,
        most_objects=most,
        pictures_without_objects=without,
        region_feature_type=manifest.rows.region_feature_type,
        region_feature_size=manifest.rows.region_feature_size,
        labels=len(labels),
        common_labels=dict(labels.most_common(MOST_COMMON)),
    )
