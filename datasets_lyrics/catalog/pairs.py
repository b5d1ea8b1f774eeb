"""Image-text pairs in tables: TSV without a header, and Parquet. Pairs in tar shards are opened as shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ...utils.optional_imports import import_optional
from .folder import Folder, Split
from .formats import Format, Record, Row, text_of
from .omissions import OmittedError

_FILES = ("file", "image", "image_path", "path", "file_name", "filename", "img")
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_CAPTIONS = ("caption", "text", "title", "alt", "sentence")


def _tsv_records(folder: Folder) -> Iterator[Record]:
    """Yield the lines of a TSV file; the image may stand before or after its caption."""
    path = folder.file()
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path.name}, line {number}", line.rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} cannot be read: it is not UTF-8: {error.reason}.") from error


def _tsv_rows(folder: Folder, columns: list[str]) -> Iterable[Row]:
    if len(columns) < 2:
        raise OmittedError("malformed record", f"one column: {columns[0]!r:.60}")
    one, other = columns[:2]
    if _is_file_name(other) and not _is_file_name(one):
        one, other = other, one
    yield _pair(folder, one, other)


def _is_file_name(text: str) -> bool:
    return PurePosixPath(urlsplit(text).path).suffix.lower() in _ENDINGS


def _parquet_records(folder: Folder) -> Iterator[Record]:
    """Yield the rows of Parquet files as mappings of their columns of paths and captions."""
    parquet = import_optional("pyarrow.parquet")
    for path in folder.find_all(folder.split.files[0]):
        file = parquet.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name.lower() in (*_FILES, *_CAPTIONS)]
        number = 0
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist():
                yield f"{path.name}, row {number}", row
                number += 1


def _parquet_rows(folder: Folder, row: dict[str, Any]) -> Iterable[Row]:
    yield _pair(folder, text_of(row, *_FILES), text_of(row, *_CAPTIONS))


def _pair(folder: Folder, name: str, caption: str) -> Row:
    picture = folder.picture(name)
    if not caption.strip():
        raise OmittedError("empty text", "the caption is empty")
    return Row(name, [picture], "caption", answers=[caption.strip()])


def _format(ending: str, get: str, records: Any, rows: Any) -> Format:
    return Format(
        f"pairs_{ending}",
        f"Image-text pairs ({ending.upper()}), such as SBU, CC3M, CC12M, LAION, COYO with their images at hand",
        "captions",
        "that of the data set",
        get,
        "as the path says; where there are URLs alone, download the images first (tar shards are opened as they are)",
        {"train": Split((f"*.{ending}",))},
        records,
        rows,
        unit="records",
    )


FORMATS = (
    _format("tsv", "a .tsv of path and caption, in either order, without a header", _tsv_records, _tsv_rows),
    _format("parquet", "one or more .parquet with columns for path and caption", _parquet_records, _parquet_rows),
)
