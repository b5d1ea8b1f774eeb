"""Prepared training rows and their order: map-style data sets and streams of shards.

A map-style data set is read in an order that accelerate's sampler draws from (seed, epoch). A stream is made of shards;
their order, and the order of rows in a block of a shard, are drawn from (seed, epoch). A run therefore resumes at
(epoch, shard, row) without reading again what it has used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from transformers.utils import logging

from ...datasets_lyrics.hf_datasets import without_decoding
from ...utils.seeding import generator, permutation

logger = logging.get_logger(__name__)

OnBadRow = Literal["raise", "replace"]
Prepare = Callable[[Mapping[str, Any], str, int], Any]

MAX_REPLACEMENTS = 100  # in a row; a data set with so many bad rows side by side is broken as a whole


class BadRowError(ValueError):
    """A row cannot be used.

    Attributes:
        row: int or str, index or key of the row.
        reason: str or exception, with the name of the file where there is one.
    """

    def __init__(self, row: object, reason: object) -> None:
        super().__init__(f"Row {row} cannot be used: {reason}")
        self.row, self.reason = row, reason

    def __reduce__(self) -> tuple[type[BadRowError], tuple[object, str]]:
        return type(self), (self.row, str(self.reason))


class MapRows(Dataset):
    """A map-style data set whose rows are prepared when they are read.

    Args:
        dataset: map-style data set; the images of a `datasets.Dataset` are not decoded by it. A `Mixture` is asked for
            its row at (seed, epoch, index).
        prepare: function of (row, name of the sample, epoch), such as `LyricsPretrainingCollator.prepare`.
        on_bad_row: `"raise"` stops at a row that cannot be read or prepared. `"replace"` warns and takes another row,
            drawn by (seed, epoch, row), so that batches keep their size.
        seed: int, seed of the replacements.
    """

    def __init__(self, dataset: Any, prepare: Prepare, on_bad_row: OnBadRow = "raise", seed: int = 0) -> None:
        self.dataset = without_decoding(dataset)
        self.prepare = prepare
        self.on_bad_row: OnBadRow = on_bad_row
        self.seed = seed
        self._epoch = torch.tensor(0).share_memory_()  # worker processes see it change

    @property
    def epoch(self) -> int:
        """Return the epoch that rows are prepared for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, also for worker processes; accelerate calls this when an epoch begins."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Return the prepared row.

        Raises:
            BadRowError: naming the row, its file and the reason.
        """
        epoch = self.epoch
        candidate = index
        for attempt in range(MAX_REPLACEMENTS):
            try:
                prepared = self.prepare(self._read(candidate, epoch), str(candidate), epoch)
                prepared.replaced = attempt
                return prepared
            except Exception as error:  # noqa: BLE001  (whatever a row's file or its decoder raises)
                _raise_or_warn(candidate, error, self.on_bad_row, "It is replaced.")
            draw = generator(self.seed, epoch, f"{index}/{attempt}", "replacement")
            candidate = int(draw.integers(len(self.dataset)))
        raise BadRowError(index, f"{MAX_REPLACEMENTS} rows drawn in its place cannot be used either.")

    def _read(self, index: int, epoch: int) -> Mapping[str, Any]:
        if hasattr(self.dataset, "row_at"):
            return self.dataset.row_at(self.seed, epoch, index)
        return self.dataset[index]


class ShardSource(Protocol):
    """Shards of rows, such as `TarSource` and `DatasetsSource`."""

    names: Sequence[str]

    def read(self, shard: int, start: int) -> Iterator[tuple[str, Mapping[str, Any] | Exception]]:
        """Yield key and row, or key and error, from the `start`-th row of a shard on, in order."""
        ...


@dataclass(frozen=True)
class Position:
    """Position at which a stream resumes.

    Attributes:
        stream: int, number of the stream, one of `ranks * workers`.
        epoch: int, epoch.
        shard: int, place among the shards of this stream in the epoch.
        row: int, row of the shard.
    """

    stream: int
    epoch: int = 0
    shard: int = 0
    row: int = 0


@dataclass(kw_only=True)
class FromDataSet:
    """Fields of a prepared row that tell where it came from; its class adds a name, `sample`.

    Attributes:
        position: `Position` at which a stream resumes after this row; `None` for map-style data.
        replaced: int, number of unusable rows that this row replaces.
        source: str, name of the data set of a mixture.
    """

    position: Position | None = None
    replaced: int = 0
    source: str = ""


NOT_FOR_THE_MODEL = ("samples", "position", "replaced", "sources")  # keys of `describe_rows`


def describe_rows(rows: Sequence[Any]) -> dict[str, Any]:
    """Return what a batch says of its rows beside tensors.

    Returns:
        `samples`, the names of the rows; for a stream `position`, where it resumes after them; `replaced`, the number
        of unusable rows, where there were any; and `sources`, the names of the rows' data sets, where they are known.
    """
    described: dict[str, Any] = {"samples": [row.sample for row in rows]}
    if rows[-1].position is not None:
        described["position"] = rows[-1].position
    if replaced := sum(row.replaced for row in rows):
        described["replaced"] = replaced
    if any(row.source for row in rows):
        described["sources"] = [row.source for row in rows]
    return described


class StreamRows(IterableDataset):
    """An endless stream of prepared rows, one part of it for each worker of each rank.

    Args:
        source: shards of rows.
        prepare: function of (row, name of the sample, epoch), such as `LyricsPretrainingCollator.prepare`.
        on_bad_row: `"raise"` stops at a row that cannot be used. `"replace"` warns and takes the next one, so that
            batches keep their size.
        seed: int, seed of the order.
        block_size: int, rows of a shard that are held and shuffled together.
        rank, num_ranks: ints, number of this process and number of processes.
    """

    def __init__(
        self,
        source: ShardSource,
        prepare: Prepare,
        on_bad_row: OnBadRow = "raise",
        seed: int = 0,
        block_size: int = 256,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.source = source
        self.prepare = prepare
        self.on_bad_row: OnBadRow = on_bad_row
        self.seed = seed
        self.block_size = block_size
        self.rank, self.num_ranks = rank, num_ranks
        self.positions: dict[int, Position] = {}
        self.first_worker = 0

    def go_on(self, positions: Sequence[Position], num_workers: int) -> None:
        """Resume where the streams of an earlier run stopped.

        Args:
            positions: positions of this rank's streams, in the order in which their last batches were used.
            num_workers: int, workers of the data loader.
        """
        self.positions = {position.stream: position for position in positions}
        if positions:
            self.first_worker = (positions[-1].stream + 1) % max(1, num_workers)

    def __iter__(self) -> Iterator[Any]:
        """Yield prepared rows; the `position` of each is where its stream resumes after it.

        Raises:
            BadRowError: naming shard, key and reason.
            ValueError: when there are fewer shards than streams.
        """
        worker = get_worker_info()
        num_workers = 1 if worker is None else worker.num_workers
        number = 0 if worker is None else worker.id
        num_streams = self.num_ranks * num_workers
        if len(self.source.names) < num_streams:
            raise ValueError(
                f"There are {len(self.source.names)} shards for {num_streams} streams ({self.num_ranks} processes x "
                f"{num_workers} data workers): split the data into more shards, or use fewer workers."
            )
        # the data loader asks its workers in turn, and starts with the first one also in a run that resumes
        stream = self.rank * num_workers + (number + self.first_worker) % num_workers
        yield from self._rows(self.positions.get(stream, Position(stream)), num_streams)

    def _rows(self, start: Position, num_streams: int) -> Iterator[Any]:
        epoch, first_shard, first_row = start.epoch, start.shard, start.row
        while True:
            found = first_shard > 0 or first_row > 0  # before this start
            skipped = 0
            shards = permutation(len(self.source.names), self.seed, epoch, "shards")[start.stream :: num_streams]
            for place, shard in list(enumerate(shards))[first_shard:]:
                for row_number, key, row in self._shuffled(int(shard), epoch, first_row):
                    sample = f"{self.source.names[shard]}/{key}"
                    try:
                        if isinstance(row, Exception):
                            raise row
                        prepared = self.prepare(row, sample, epoch)
                    except Exception as error:  # noqa: BLE001  (whatever a row's file or its decoder raises)
                        _raise_or_warn(sample, error, self.on_bad_row, "The next one is taken.")
                        skipped += 1
                        continue
                    found = True
                    prepared.replaced, skipped = skipped, 0
                    prepared.position = Position(start.stream, epoch, place, row_number + 1)
                    yield prepared
                first_row = 0
            if not found:
                raise ValueError(f"Stream {start.stream} has not a single usable row in epoch {epoch}.")
            epoch, first_shard = epoch + 1, 0

    def _shuffled(self, shard: int, epoch: int, start: int) -> Iterator[tuple[int, str, Any]]:
        """Yield the rows of a shard, shuffled block by block, from the `start`-th in that order on."""
        block = start // self.block_size
        rows = self.source.read(shard, block * self.block_size)
        while held := list(islice(rows, self.block_size)):
            order = permutation(len(held), self.seed, epoch, f"block {shard}/{block}")
            first = block * self.block_size
            for place, index in enumerate(order):
                if first + place >= start:
                    yield first + place, *held[index]
            block += 1


def _raise_or_warn(row: object, error: Exception, on_bad_row: OnBadRow, consequence: str) -> None:
    bad = BadRowError(row, error)
    if on_bad_row == "raise":
        raise bad from error
    logger.warning("%s %s", bad, consequence)


def save_positions(path: Path, positions: Sequence[Position], num_workers: int) -> None:
    """Write the positions at which the streams of a rank resume."""
    path.write_text(json.dumps({"num_workers": num_workers, "positions": [asdict(one) for one in positions]}))


def load_positions(path: Path, num_workers: int) -> list[Position]:
    """Read what `save_positions` wrote.

    Raises:
        ValueError: when the run had another number of data workers, with both numbers.
    """
    saved = json.loads(path.read_text())
    if saved["num_workers"] != num_workers:
        raise ValueError(
            f"{path} was saved by a run with {saved['num_workers']} data workers, and this one has {num_workers}: the "
            "order of the data would differ. Set dataloader_num_workers accordingly."
        )
    return [Position(**position) for position in saved["positions"]]
