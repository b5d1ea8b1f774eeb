"""Filtering of many tar shards: decisions shard by shard, duplicates over all of them, copies of what is kept.

Every step writes a file for each shard and skips what is there, so that the same command resumes. Shards are
independent but for duplicates, which one process finds from the hashes alone, 8 bytes an image.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers.utils import logging

from ...utils.atomic_files import write_file
from ...utils.folder_lock import FolderLock
from ...utils.optional_imports import import_optional
from ..mixtures.perceptual_hash import is_plain
from ..webdataset import expand_shards
from .rules import FilterRules
from .shard import FilterTask, load_decisions

Engine = Literal["local", "ray"]

HASHES_AT_ONCE = 1 << 26  # in memory, with their places 1 GB
_TAR = re.compile(r"\.(tar|tgz|tar\.(gz|bz2|xz|zst))$", flags=re.IGNORECASE)


@dataclass
class FilterReport:
    """What was kept, and why the rest was not.

    Attributes:
        pairs, kept: ints, number of pairs that were read and that are kept.
        dropped: number of pairs by reason.
        shards: int, number of shards.
    """

    pairs: int
    kept: int
    dropped: dict[str, int]
    shards: int

    def describe(self) -> str:
        """Return the counts as lines of text."""
        lines = [f"Kept {self.kept:,} of {self.pairs:,} pairs in {self.shards:,} shards"]
        lines += [
            f"  {count:>12,}  {count / max(1, self.pairs):6.1%}  {reason}" for reason, count in self.dropped.items()
        ]
        return "\n".join(lines)


def filter_pairs(
    shards: str | Sequence[str],
    out: str | os.PathLike,
    rules: FilterRules | None = None,
    workers: int = 1,
    engine: Engine = "local",
    copy: bool = True,
) -> FilterReport:
    """Filter WebDataset tar shards of images and captions.

    Args:
        shards: paths, patterns or URLs of the shards.
        out: folder of the kept samples (tar shards of the same names), of `decisions/` and of `report.json`.
        rules: rules of the filter.
        workers: int, processes, or tasks of Ray, at a time.
        engine: `"local"`, or `"ray"` for Ray Data, whose machines must see the same paths.
        copy: bool, whether kept samples are written, or only decided.

    Raises:
        FileNotFoundError: when there is no such shard.
        ValueError: when `out` was begun with other rules or shards.
    """
    paths = expand_shards(shards)
    out = Path(os.path.abspath(out))
    task = FilterTask(tuple(paths), tuple(_names(paths)), out, rules or FilterRules())
    out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out, "filtering"):
        _require_same_task(task)
        _run(task.decide, range(len(paths)), workers, engine, "Deciding")
        if task.rules.duplicates:
            drop_duplicates(task)
        if copy:
            _run(task.copy, range(len(paths)), workers, engine, "Copying")
        report = _report(task)
        with write_file(out / "report.json", "w", encoding="utf-8") as file:
            json.dump(asdict(report), file, indent=1)
    return report


def drop_duplicates(task: FilterTask) -> None:
    """Keep of each perceptual hash the first image, in the order of the shards; plain images are never compared.

    Hashes are compared part by part, so that memory has a limit.
    """
    mark = task.out / "decisions" / "duplicates.done"
    if mark.is_file():
        return
    files = [task.decision_file(number) for number in range(len(task.shards))]
    sizes = [len(load_decisions(file)[0]) for file in files]
    ends = np.cumsum(sizes)
    parts = max(1, math.ceil(sum(sizes) / HASHES_AT_ONCE))
    repeated = np.sort(np.concatenate([_repeated(files, ends, part, parts) for part in range(parts)]))
    for number, file in enumerate(files):
        start = ends[number] - sizes[number]
        mine = repeated[np.searchsorted(repeated, start) : np.searchsorted(repeated, ends[number])] - start
        if len(mine):
            _drop(file, mine)
    mark.touch()


def _repeated(files: Sequence[Path], ends: np.ndarray, part: int, parts: int) -> np.ndarray:
    """Return the places, over all shards, of images whose hash came before, among the hashes of one part."""
    hashes, places = [], []
    for file, end in zip(files, ends, strict=True):
        _, found, _ = load_decisions(file)
        chosen = np.flatnonzero((found % np.uint64(parts) == part) & ~is_plain(found))
        hashes.append(found[chosen])
        places.append(chosen + (end - len(found)))
    joined, where = np.concatenate(hashes), np.concatenate(places)
    _, first = np.unique(joined, return_index=True)
    is_first = np.zeros(len(joined), bool)
    is_first[first] = True
    return where[~is_first]


def _drop(file: Path, places: np.ndarray) -> None:
    kept, hashes, counts = load_decisions(file)
    counts["duplicate image"] += len(places)
    with write_file(file) as written:
        np.savez(
            written,
            kept=np.delete(kept, places),
            hashes=np.delete(hashes, places),
            counts=np.frombuffer(json.dumps(counts).encode(), np.uint8),
        )


def _run(work: Callable[[int], None], numbers: Iterable[int], workers: int, engine: Engine, name: str) -> None:
    """Call a function for each shard: here, in processes, or on Ray."""
    numbers = list(numbers)
    with logging.tqdm(total=len(numbers), desc=name, unit="shard") as bar:
        if engine == "ray":
            _run_on_ray(work, numbers, workers, bar)
        elif workers == 1:
            for number in numbers:
                work(number)
                bar.update()
        else:
            methods = multiprocessing.get_all_start_methods()
            context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
            if "forkserver" in methods:
                context.set_forkserver_preload([__name__])  # once, and not in every worker
            with ProcessPoolExecutor(workers, context) as pool:
                for _ in pool.map(work, numbers):
                    bar.update()


def _run_on_ray(work: Callable[[int], None], numbers: Sequence[int], workers: int, bar: Any) -> None:
    ray, data = import_optional("ray"), import_optional("ray.data")
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    data.DataContext.get_current().enable_progress_bars = False
    rows = data.from_items([{"shard": number} for number in numbers], override_num_blocks=len(numbers))

    def call(row: dict[str, Any]) -> dict[str, Any]:
        work(int(row["shard"]))
        return row

    for _ in islice(rows.map(call, concurrency=workers).iter_rows(), len(numbers)):
        bar.update()


def _names(paths: Sequence[str]) -> list[str]:
    """Return the names of shards without folders and endings; where names repeat, with their number before them."""
    names = [_TAR.sub("", path.rpartition("/")[2]) for path in paths]
    if len(set(names)) == len(names):
        return names
    return [f"{number:06d}-{name}" for number, name in enumerate(names)]


def _require_same_task(task: FilterTask) -> None:
    """Write down rules and shards, or compare them with those of an earlier run.

    Raises:
        ValueError: when they differ.
    """
    path = task.out / "filter.json"
    mine = json.loads(json.dumps({"rules": asdict(task.rules), "shards": list(task.names)}))
    if not path.is_file():
        if any(task.out.glob("*.tar")):
            raise ValueError(f"{task.out} holds tar shards already; take an empty folder.")
        with write_file(path, "w", encoding="utf-8") as file:
            json.dump(mine, file, indent=1)
    elif json.loads(path.read_text(encoding="utf-8")) != mine:
        raise ValueError(f"{task.out} was begun with other rules or shards, see {path}; take an empty folder.")


def _report(task: FilterTask) -> FilterReport:
    counts, kept = Counter[str](), 0
    for number in range(len(task.shards)):
        mine, _, found = load_decisions(task.decision_file(number))
        kept += len(mine)
        counts += found
    pairs = counts.pop("pairs", 0)
    return FilterReport(pairs, kept, dict(counts.most_common()), len(task.shards))
