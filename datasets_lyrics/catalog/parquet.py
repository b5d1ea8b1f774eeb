"""Rows of the catalog as one Parquet file, for other tools and for machines without the original files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from ...utils.atomic_files import write_file
from ...utils.optional_imports import import_optional
from .reading import CatalogReader
from .row_store import ROWS_AT_ONCE, facts_schema
from .rows import canonical_rows


def write_parquet(
    readers: Sequence[CatalogReader],
    path: str | os.PathLike,
    root: str | os.PathLike,
    progress: Callable[[int], object] = lambda _: None,
) -> int:
    """Write the canonical rows of data sets, and return their number.

    Where all of them have captions, each row also has `image` and `caption`, as the first stage reads them.

    Args:
        readers: readers of the data sets.
        path: path of the new file.
        root: folder that holds all of them; paths of images are relative to it.
        progress: function, called with the number of rows that were written since the last call.

    Raises:
        FileNotFoundError, ValueError: as iterating a reader does.
        OSError: when the file cannot be written.
    """
    pa, parquet = import_optional("pyarrow"), import_optional("pyarrow.parquet")
    streams = [_rows(reader, root) for reader in readers]
    firsts = [list(islice(stream, 1)) for stream in streams]
    count, schema = 0, facts_schema(pa)
    if all(row["caption"] is not None for first in firsts for row in first):
        schema = schema.append(pa.field("image", pa.string())).append(pa.field("caption", pa.list_(pa.string())))
    with write_file(path) as file, parquet.ParquetWriter(file, schema) as writer:
        rows = chain.from_iterable(chain(*both) for both in zip(firsts, streams, strict=True))
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
            count += len(batch)
            progress(len(batch))
    return count


def _rows(reader: CatalogReader, root: str | os.PathLike) -> Iterator[dict[str, Any]]:
    start = os.path.relpath(reader.folder.root, root)
    for row in canonical_rows(reader):
        paths = [path if start == "." else f"{start}/{path}".replace(os.sep, "/") for path in row["images"]]
        yield {**row, "images": paths, "image": paths[0] if paths else None}
