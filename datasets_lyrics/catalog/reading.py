"""Reading of a data set of the catalog: rows, one after the other, with what is left out counted and named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers.utils import logging

from .folder import Folder
from .formats import Format, Record, Row
from .omissions import Omissions, OmittedError

logger = logging.get_logger(__name__)

TOLERANCE = 0.001  # share by which a size may differ from what the field reports without a warning


@dataclass
class Summary:
    """What one reading of a data set found.

    Attributes:
        rows: int, number of rows.
        records: int, number of records in the files.
        omissions: records that were left out.
        expected: int, size that the field reports, or `None`.
        counted: int, number that is compared with it.
        unit: str, what both count.
    """

    rows: int
    records: int
    omissions: Omissions
    expected: int | None
    counted: int
    unit: str

    @property
    def differs(self) -> bool:
        """Whether the size is not what the field reports."""
        return self.expected is not None and abs(self.counted - self.expected) > TOLERANCE * self.expected

    def notes(self, reader: CatalogReader) -> list[str]:
        """Return sentences about what was left out, and about a size that is not what the field reports."""
        name = f"{reader.format.name} ({reader.split}) in {reader.folder.root}"
        notes = []
        if count := self.omissions.total:
            notes.append(f"{name}: {count:,} faults in {self.records:,} records. {self.omissions.describe()}")
        if self.differs:
            notes.append(
                f"{name} has {self.counted:,} {self.unit}, and the field reports {self.expected:,}: numbers from it "
                "are not comparable with published ones."
            )
        return notes


class NoUsableRowError(ValueError):
    """No record of a data set can be used; its reader's `folder` holds what was left out."""


class CatalogReader:
    """Rows of one split of a data set, read from its files each time it is iterated.

    Args:
        data: format of the data set.
        root: path, its folder.
        split: str, name of the split; by default the first of the format.
        file: str, name of the one file that is read, where a file was named instead of a folder.

    Attributes:
        summary: `Summary` of the last reading that came to its end, or `None`.
        warns: bool, whether a reading that came to its end logs what it left out; True at first.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when the data set has no such split.
    """

    def __init__(self, data: Format, root: Any, split: str | None = None, file: str | None = None) -> None:
        split = split or next(iter(data.splits))
        if split not in data.splits:
            raise ValueError(f"{data.name} has no split {split!r}; its splits are {', '.join(data.splits)}.")
        self.format, self.split, self.root, self.file = data, split, root, file
        self.summary: Summary | None = None
        self.warns = True
        self.folder = self._open()

    def _open(self) -> Folder:
        return Folder(self.root, self.format.splits[self.split], self.split, self.file)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows.

        Raises:
            FileNotFoundError: when a file is missing.
            ValueError: when a file cannot be read, or no record can be used (`NoUsableRowError`); the message says why.
        """
        folder = self.folder = self._open()
        count = 0
        for place, record in self._records(folder):
            folder.records += 1
            for row in self._rows_of(folder, place, record):
                count += 1
                row.id = row.id or place
                yield row
        self._finish(folder, count)

    def _records(self, folder: Folder) -> Iterator[Record]:
        """Yield the records; an error of an unexpected shape names the record before it."""
        place = "the start"
        try:
            for place, record in self.format.records(folder):
                yield place, record
        except (TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
            raise ValueError(
                f"{self.format.name} ({self.split}) in {folder.root} is not of the expected form, after {place}: "
                f"{type(error).__name__}: {error}."
            ) from error

    def _rows_of(self, folder: Folder, place: str, record: Any) -> list[Row]:
        try:
            if isinstance(record, OmittedError):
                raise record
            if isinstance(record, Exception):
                raise OmittedError("malformed record", str(record))
            rows = list(self.format.rows(folder, record))
            for text in (text for row in rows for text in row.texts() if not text.isascii()):
                _require_unicode(text)
            return rows
        except OmittedError as error:
            fault = error
        except KeyError as error:
            fault = OmittedError(f"no field {error}", f"{record!r:.80}")
        except (TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError, OSError) as error:
            fault = OmittedError("malformed record", f"{error}: {record!r:.80}")
        folder.omissions.add(place, fault)
        folder.unusable += 1
        return []

    def _finish(self, folder: Folder, count: int) -> None:
        data, omissions = self.format, folder.omissions
        name = f"{data.name} ({self.split}) in {folder.root}"
        if not count:
            raise NoUsableRowError(f"{name} has no usable row among {folder.records:,} records. {omissions.describe()}")
        expected = folder.split.size
        counted = count + folder.unusable if data.unit == "rows" else folder.records
        self.summary = Summary(count, folder.records, omissions, expected, counted, data.unit)
        for note in self.summary.notes(self) if self.warns else ():
            logger.warning(note)


def _require_unicode(text: str) -> None:
    """Refuse half a surrogate pair, which JSON can write and no file can hold as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise OmittedError("no Unicode", f"{text!r:.60}: {error.reason}") from error
