"""Training data by name: what the `datasets` library reads, tar shards, and shapes that are drawn on the spot."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..refinement import RefinementStore
from ..trainers.data.datasets import TarSource

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
DRAWN = ("shapes:", "chats:", "pairs:")


@dataclass
class DataArguments:
    """Where the rows of a run come from, in either stage."""

    train_data: str | None = field(
        default=None,
        metadata={
            "help": "A .jsonl, .json, .csv or .parquet file, tar shards, a data set on disk or on the Hub, or, drawn "
            "on the spot, shapes:N (captions), chats:N (conversations), pairs:N (preferences)."
        },
    )
    eval_data: str | None = field(default=None, metadata={"help": "Likewise, for evaluation."})
    store: str | None = field(
        default=None, metadata={"help": "A store of `lyrics refine-dataset`, in which objects are looked up."}
    )
    image_root: str | None = field(default=None, metadata={"help": "Where the pictures of a file lie (its folder)."})
    train_split: str = field(default="train", metadata={"help": "Split of train_data."})
    eval_split: str = field(default="validation", metadata={"help": "Split of eval_data."})
    streaming: bool = field(default=False, metadata={"help": "Read train_data as a stream; needs max_steps."})

    def open(self, processor: Any, **columns: str) -> tuple[Any, Any]:
        """Rows to train on and to evaluate on, or `None`; the processor is given the store.

        Args:
            processor: a `LyricsProcessor`.
            columns: `image_column` and `caption_column` of the rows.

        Raises:
            ValueError: when there are no training data, or no such source.
        """
        if self.train_data is None:
            raise ValueError("no training data: give --train_data, or a recipe that names it.")
        if self.store is not None:
            processor.store = RefinementStore.open(self.store)
        where: dict[str, Any] = {"image_root": self.image_root, **columns}
        train_rows = open_rows(self.train_data, split=self.train_split, streaming=self.streaming, **where)
        if self.eval_data is None:
            return train_rows, None
        return train_rows, open_rows(self.eval_data, split=self.eval_split, **where)


class RowsOfFolder:
    """Rows whose pictures are given by paths relative to a folder.

    Args:
        rows: a map-style data set.
        folder: paths that lead out of it are refused.
        columns: that may hold a path or a list of paths.
    """

    def __init__(self, rows: Any, folder: Path, columns: Sequence[str]) -> None:
        self.rows, self.folder, self.columns = rows, folder, columns

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return place_in_folder(self.rows[index], self.folder, self.columns)


def place_in_folder(row: Mapping[str, Any], folder: Path, columns: Sequence[str]) -> dict[str, Any]:
    """A row with the paths of its pictures made absolute.

    Raises:
        ValueError: when a path leads out of the folder.
    """
    placed = dict(row)
    for column in columns:
        value = row.get(column)
        if isinstance(value, str):
            placed[column] = _place(value, folder)
        elif isinstance(value, list):
            placed[column] = [_place(one, folder) if isinstance(one, str) else one for one in value]
    return placed


def _place(path: str, folder: Path) -> str:
    if path.startswith(("http://", "https://", "data:")):
        return path
    absolute = (folder / path).resolve()
    if not absolute.is_relative_to(folder.resolve()):
        raise ValueError(f"The picture {path!r} lies outside {folder}, the folder of its data.")
    return str(absolute)


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
            `metadata.jsonl`; the id of a data set on the Hub; or, drawn on the spot, `shapes:COUNT` (captions),
            `chats:COUNT` (conversations) and `pairs:COUNT` (preferences).
        image_column, caption_column: of the rows; pictures may also be in `images`, as a list.
        image_root: where the pictures of a file lie, by default in its folder.
        split: of a data set that has several.
        streaming: read as a stream, shard by shard.

    Raises:
        ValueError: when there is no such source.
    """
    if source.startswith(DRAWN):
        from ..assets import ShapeChats, ShapePairs, ShapeRows

        kind, *numbers = source.split(":")
        if not all(number.isdecimal() for number in numbers) or len(numbers) > 2:
            raise ValueError(f"{source!r} is not {kind}:COUNT or {kind}:COUNT:SEED.")
        kinds = {"shapes": ShapeRows, "chats": ShapeChats, "pairs": ShapePairs}
        return kinds[kind](*map(int, numbers))
    if ".tar" in os.path.basename(source):
        return TarSource(source, image_column, caption_column)
    import datasets

    path = Path(source)
    if path.suffix in FORMATS:
        if not path.is_file():
            raise ValueError(f"There is no file {source}.")
        return _open_file(path, Path(image_root or path.parent), (image_column, "images"), streaming)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        saved = datasets.load_from_disk(source)
        return saved[split] if isinstance(saved, datasets.DatasetDict) else saved
    if path.exists():
        return datasets.load_dataset("imagefolder", data_dir=source, split=split, streaming=streaming)
    return datasets.load_dataset(source, split=split, streaming=streaming)


def _open_file(path: Path, folder: Path, columns: Sequence[str], streaming: bool) -> Any:
    import datasets

    rows: Any = datasets.load_dataset(FORMATS[path.suffix], data_files=str(path), split="train", streaming=streaming)
    if streaming:
        return rows.map(place_in_folder, fn_kwargs={"folder": folder, "columns": columns})
    return RowsOfFolder(rows, folder, columns)
