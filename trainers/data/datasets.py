"""Where training rows come from, and in which order: map-style data sets, streams, tar shards.

A map-style data set is read in an order that accelerate's sampler draws from (seed, epoch). A stream is made of shards;
their order, and the order of rows in a block of a shard, are drawn from (seed, epoch). So a run goes on at
(epoch, shard, row) without reading again what it has seen.
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

from ...datasets_lyrics.webdataset import IMAGE_EXTENSIONS, TarShardError, expand_shards, read_shard
from .seeding import generator, permutation

logger = logging.get_logger(__name__)

OnBadRow = Literal["raise", "replace"]
Prepare = Callable[[Mapping[str, Any], str, int], Any]

MAX_REPLACEMENTS = 100  # in a row; a data set with so many bad rows side by side is broken as a whole
CAPTION_EXTENSIONS = ("txt", "caption")


class BadRowError(ValueError):
    """A row cannot be used.

    Attributes:
        row: its index or key.
        reason: what is wrong, with the file's name where there is a file.
    """

    def __init__(self, row: object, reason: object) -> None:
        super().__init__(f"Row {row} cannot be used: {reason}")
        self.row, self.reason = row, reason

    def __reduce__(self) -> tuple[type[BadRowError], tuple[object, str]]:
        return type(self), (self.row, str(self.reason))


class SharedNumber:
    """A number that worker processes see change."""

    def __init__(self, value: int = 0) -> None:
        self._tensor = torch.tensor(value).share_memory_()

    def get(self) -> int:
        """The number as it is now."""
        return int(self._tensor)

    def set(self, value: int) -> None:
        """Change it for every process."""
        self._tensor.fill_(value)


class MapRows(Dataset):
    """A map-style data set whose rows come out prepared.

    Args:
        dataset: with `__len__` and `__getitem__`; a `datasets.Dataset` is read without decoding its pictures.
        prepare: `LyricsPretrainingCollator.prepare`, or another function of (row, name of the sample, epoch).
        on_bad_row: `"raise"` stops at a row that cannot be read or prepared; `"replace"` warns, and takes another row,
            drawn by (seed, epoch, row), so that batches keep their size.
        seed: of the replacements.
    """

    def __init__(self, dataset: Any, prepare: Prepare, on_bad_row: OnBadRow = "raise", seed: int = 0) -> None:
        self.dataset = without_decoding(dataset)
        self.prepare = prepare
        self.on_bad_row: OnBadRow = on_bad_row
        self.seed = seed
        self._epoch = SharedNumber()

    @property
    def epoch(self) -> int:
        """The epoch that rows are prepared for."""
        return self._epoch.get()

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the beginning of each epoch."""
        self._epoch.set(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """The prepared row.

        Raises:
            BadRowError: naming the row, its file and the reason.
        """
        epoch = self.epoch
        candidate = index
        for attempt in range(MAX_REPLACEMENTS):
            try:
                prepared = self.prepare(self.dataset[candidate], str(candidate), epoch)
                prepared.replaced = attempt
                return prepared
            except Exception as error:  # whatever a row's file or its decoder raises
                bad = BadRowError(candidate, error)
                if self.on_bad_row == "raise":
                    raise bad from error
                logger.warning("%s It is replaced.", bad)
                draw = generator(self.seed, epoch, f"{index}/{attempt}", "replacement")
                candidate = int(draw.integers(len(self.dataset)))
        raise BadRowError(index, f"{MAX_REPLACEMENTS} rows drawn in its place cannot be used either.")


class ShardSource(Protocol):
    """Shards of rows."""

    names: Sequence[str]

    def read(self, shard: int, start: int) -> Iterator[tuple[str, Mapping[str, Any] | Exception]]:
        """Key and row, or what is wrong with it, of every row from the `start`-th on, in the order of the shard."""
        ...


class TarSource:
    """WebDataset tar shards: pictures, captions as `.txt`, or `.json` with further columns.

    Args:
        shards: paths, patterns (`shard-{0000..0099}.tar`, `*.tar`) or URLs.
        image_column, caption_column: what picture and `.txt` are called in the rows.
    """

    def __init__(
        self, shards: str | Path | Sequence[str | Path], image_column: str = "image", caption_column: str = "caption"
    ) -> None:
        self.names: Sequence[str] = expand_shards(shards)
        self.image_column, self.caption_column = image_column, caption_column

    def read(self, shard: int, start: int) -> Iterator[tuple[str, Mapping[str, Any] | Exception]]:
        """See `ShardSource`. A shard that is cut ends with its error."""
        errors: list[TarShardError] = []
        required = (IMAGE_EXTENSIONS, (*CAPTION_EXTENSIONS, "json"))
        for sample in read_shard(self.names[shard], start, required, errors.append):
            yield from self._bad(errors)
            try:
                yield sample.key, self._row(sample)
            except ValueError as error:
                yield sample.key, TarShardError(sample.shard, sample.key, f"has a damaged .json: {error}")
        yield from self._bad(errors)

    def _row(self, sample: Any) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(sample.files["json"]) if "json" in sample.files else {}
        if (caption := sample.first_of(CAPTION_EXTENSIONS)) is not None:
            row[self.caption_column] = caption.decode()
        row[self.image_column] = {"bytes": sample.first_of(IMAGE_EXTENSIONS), "path": None}
        return row

    def _bad(self, errors: list[TarShardError]) -> Iterator[tuple[str, Exception]]:
        while errors:
            error = errors.pop(0)
            yield error.key or "", error


class DatasetsSource:
    """A streaming data set of the `datasets` library (`datasets.IterableDataset`)."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = without_decoding(dataset)
        self.names: Sequence[str] = [f"shard {index}" for index in range(dataset.num_shards)]

    def read(self, shard: int, start: int) -> Iterator[tuple[str, Mapping[str, Any] | Exception]]:
        """See `ShardSource`."""
        part = self.dataset.shard(num_shards=len(self.names), index=shard).skip(start)
        for index, row in enumerate(part, start=start):
            yield str(index), row


@dataclass(frozen=True)
class Position:
    """Where a stream goes on.

    Attributes:
        stream: of this position, one of `ranks * workers`.
        epoch, shard, row: the epoch, the place among the shards of this stream in the epoch, and the row of the shard.
    """

    stream: int
    epoch: int = 0
    shard: int = 0
    row: int = 0


@dataclass(kw_only=True)
class FromDataSet:
    """What a prepared row knows of the data set that it came from; it has a name, `sample`, beside.

    Attributes:
        position: where a stream goes on after this row.
        replaced: how many rows that could not be used it stands for.
    """

    position: Position | None = None
    replaced: int = 0


NOT_FOR_THE_MODEL = ("samples", "position", "replaced")  # keys of `describe_rows`


def describe_rows(rows: Sequence[Any]) -> dict[str, Any]:
    """What a batch says of its rows, beside tensors: `samples`, their names; `position`, where a stream goes on after
    them; `replaced`, how many rows could not be used. The last two are left out where there is nothing to say.
    """
    said: dict[str, Any] = {"samples": [row.sample for row in rows]}
    if rows[-1].position is not None:
        said["position"] = rows[-1].position
    if replaced := sum(row.replaced for row in rows):
        said["replaced"] = replaced
    return said


class StreamRows(IterableDataset):
    """An endless stream of prepared rows, one part of it for each worker of each rank.

    Args:
        source: of shards.
        prepare: `LyricsPretrainingCollator.prepare`, or another function of (row, name of the sample, epoch).
        on_bad_row: `"raise"` stops at a row that cannot be used; `"replace"` warns and takes the next one, so that
            batches keep their size.
        seed: of the order.
        block_size: rows of a shard that are held and shuffled together.
        rank, num_ranks: of this process.
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
        """Start where other streams stopped.

        Args:
            positions: of the streams of this rank, in the order in which their last batches were used.
            num_workers: of the data loader.
        """
        self.positions = {position.stream: position for position in positions}
        if positions:
            self.first_worker = (positions[-1].stream + 1) % max(1, num_workers)

    def __iter__(self) -> Iterator[Any]:
        """Prepared rows; each knows as `position` where its stream goes on after it.

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
        # the data loader asks its workers in turn, and starts with the first one also when a run goes on
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
                    prepared = self._prepare(row, f"{self.source.names[shard]}/{key}", epoch)
                    skipped += prepared is None
                    if prepared is not None:
                        found = True
                        prepared.replaced, skipped = skipped, 0
                        prepared.position = Position(start.stream, epoch, place, row_number + 1)
                        yield prepared
                first_row = 0
            if not found:
                raise ValueError(f"Stream {start.stream} has not a single usable row in epoch {epoch}.")
            epoch, first_shard = epoch + 1, 0

    def _shuffled(self, shard: int, epoch: int, start: int) -> Iterator[tuple[int, str, Any]]:
        """The rows of a shard, shuffled block by block, from the `start`-th in that order on."""
        block = start // self.block_size
        rows = self.source.read(shard, block * self.block_size)
        while held := list(islice(rows, self.block_size)):
            order = permutation(len(held), self.seed, epoch, f"block {shard}/{block}")
            first = block * self.block_size
            for place, index in enumerate(order):
                if first + place >= start:
                    yield first + place, *held[index]
            block += 1

    def _prepare(self, row: Any, sample: str, epoch: int) -> Any:
        try:
            if isinstance(row, Exception):
                raise row
            return self.prepare(row, sample, epoch)
        except Exception as error:  # whatever a row's file or its decoder raises
            bad = BadRowError(sample, error)
            if self.on_bad_row == "raise":
                raise bad from error
            logger.warning("%s The next one is taken.", bad)
            return None


def without_decoding(dataset: Any) -> Any:
    """A data set of the `datasets` library whose pictures come as bytes or paths, so that a bad one can be named."""
    features = getattr(dataset, "features", None)
    for name, feature in (features or {}).items():
        if type(feature).__name__ == "Image" and getattr(feature, "decode", False):
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    return dataset


def save_positions(path: Path, positions: Sequence[Position], num_workers: int) -> None:
    """Write where the streams of a rank go on."""
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
