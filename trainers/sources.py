"""Training data by name: what the `datasets` library reads, tar shards, and shapes that are drawn on the spot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .data import TarSource

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
SHAPES = "shapes:"


class RowsOfFolder:
    """Rows whose pictures are given by paths relative to a folder.

    Args:
        rows: a map-style data set.
        folder: paths that lead out of it are refused.
        image_column: of the paths.
    """

    def __init__(self, rows: Any, folder: Path, image_column: str) -> None:
        self.rows, self.folder, self.image_column = rows, folder, image_column

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return place_in_folder(self.rows[index], self.folder, self.image_column)


def place_in_folder(row: Mapping[str, Any], folder: Path, image_column: str) -> dict[str, Any]:
    """A row with the path of its picture made absolute.

    Raises:
        ValueError: when the path leads out of the folder.
    """
    path = row.get(image_column)
    if not isinstance(path, str) or path.startswith(("http://", "https://", "data:")):
        return dict(row)
    absolute = (folder / path).resolve()
    if not absolute.is_relative_to(folder.resolve()):
        raise ValueError(f"The picture {path!r} lies outside {folder}, the folder of its data.")
    return {**row, image_column: str(absolute)}


def open_rows(
    source: str,
    *,
    image_column: str = "image",
    caption_column: str = "caption",
    image_root: str | os.PathLike | None = None,
    split: str = "train",
    streaming: bool = False,
) -> Any:
    """The rows of a source.

    Args:
        source: a `.jsonl`, `.json`, `.csv` or `.parquet` file whose pictures are paths relative to it; tar shards
            (`shards/{0000..0099}.tar`); a folder of `datasets.save_to_disk`; a folder of pictures with a
            `metadata.jsonl`; the id of a data set on the Hub; or `shapes:COUNT`, drawn on the spot.
        image_column, caption_column: of the rows.
        image_root: where the pictures of a file lie, by default in its folder.
        split: of a data set that has several.
        streaming: read as a stream, shard by shard.

    Raises:
        ValueError: when there is no such source.
    """
    if source.startswith(SHAPES):
        from ..assets import ShapeRows

        numbers = source.removeprefix(SHAPES).split(":")
        if not all(number.isdecimal() for number in numbers) or len(numbers) > 2:
            raise ValueError(f"{source!r} is not shapes:COUNT or shapes:COUNT:SEED.")
        return ShapeRows(*map(int, numbers))
    if ".tar" in os.path.basename(source):
        return TarSource(source, image_column, caption_column)
    import datasets

    path = Path(source)
    if path.suffix in FORMATS:
        if not path.is_file():
            raise ValueError(f"There is no file {source}.")
        return _open_file(path, Path(image_root or path.parent), image_column, streaming)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        saved = datasets.load_from_disk(source)
        return saved[split] if isinstance(saved, datasets.DatasetDict) else saved
    if path.exists():
        return datasets.load_dataset("imagefolder", data_dir=source, split=split, streaming=streaming)
    return datasets.load_dataset(source, split=split, streaming=streaming)


def _open_file(path: Path, folder: Path, image_column: str, streaming: bool) -> Any:
    import datasets

    rows: Any = datasets.load_dataset(FORMATS[path.suffix], data_files=str(path), split="train", streaming=streaming)
    if streaming:
        return rows.map(place_in_folder, fn_kwargs={"folder": folder, "image_column": image_column})
    return RowsOfFolder(rows, folder, image_column)
