"""`lyrics evaluate retrieval`: recall on Flickr30k and COCO, written after each data set, so that a run resumes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets_lyrics.open_data import open_rows
from ..evaluation.metrics.retrieval import RERANKED
from ..utils.atomic_files import write_file
from ..utils.folder_lock import FolderLock
from .encoder import PairEncoder
from .evaluation import evaluate_retrieval
from .model_identity import describe_encoder, explain_differences

TASK = "retrieval"
RESULTS = "retrieval.json"
_DATA = {"flickr30k": ("flickr30k", "test", 1000), "coco": ("coco_karpathy", "test", 5000)}  # name, split, images


@dataclass(frozen=True)
class RetrievalTask:
    """Data set whose images and captions are compared.

    Attributes:
        name: `"flickr30k"` or `"coco"`.
        word: word of `open_rows`.
        images: int, number of images that the field reports on.
    """

    name: str
    word: str
    images: int


def parse_retrieval_words(words: Sequence[str], root: str | os.PathLike[str] | None = None) -> list[RetrievalTask]:
    """Return the tasks of words.

    Args:
        words: `retrieval` for both data sets, `retrieval/flickr30k`, `retrieval/coco`, or either with `:FOLDER`.
        root: folder with the folders `flickr30k` and `coco` (or `coco_karpathy`), for words without a folder.

    Raises:
        ValueError: a word names no data set, or no folder is known.
    """
    tasks: dict[str, RetrievalTask] = {}
    for word in words:
        name, _, folder = word.partition(":")
        chosen = name.partition("/")[2]
        if (chosen and chosen not in _DATA) or (folder and not chosen):
            known = ", ".join(f"{TASK}/{one}" for one in _DATA)
            raise ValueError(f"{word!r} names no data set for retrieval: write {known}, each also with :FOLDER.")
        for one in [chosen] if chosen else _DATA:
            data, split, images = _DATA[one]
            if not folder and root is None:
                raise ValueError(f"Where is {one}? Write {TASK}/{one}:FOLDER, or give the root of the data.")
            places = [os.path.join(os.fspath(root or ""), name) for name in (one, data)]
            place = folder or next(filter(os.path.isdir, places), places[0])
            tasks[one] = RetrievalTask(one, f"{data}/{split}:{place}", images)
    return list(tasks.values())


def evaluate_tasks(
    encoder: PairEncoder,
    tasks: Sequence[RetrievalTask],
    out: str | os.PathLike[str],
    *,
    reranked: int = RERANKED,
    limit: int | None = None,
    image_root: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Measure recall on data sets, and write `retrieval.json` after each; those that it has are not measured again.

    Args:
        encoder: first stage.
        tasks: tasks of `parse_retrieval_words`.
        out: folder of the results.
        reranked: int, number of candidates of each query that are scored as pairs; 0 for none.
        limit: int, number of images, drawn the same way each time; recall among fewer images is larger.
        image_root: further folder that links of images may lead to.

    Returns:
        Content of the file: `encoder`, `options`, and `results` by data set, of `tasks` alone.

    Raises:
        ValueError: data are unusable, or the folder has results of another model, other options or other data.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    described = {"encoder": describe_encoder(encoder), "options": {"reranked": reranked, "limit": limit}}
    with FolderLock(folder, "evaluating retrieval"):
        content = _resume(folder / RESULTS, described)
        opened = [open_rows(task.word, image_root=image_root, need_captions=True) for task in tasks]
        captions = [_hash_captions(rows) for rows in opened]
        for task, found in zip(tasks, captions, strict=True):
            _check_same_data(folder / RESULTS, content["results"].get(task.name), task, found)
        for task, rows, found in zip(tasks, opened, captions, strict=True):
            if task.name in content["results"]:
                continue
            if limit is not None and limit < len(rows):
                rows = rows.select(sorted(np.random.default_rng(0).permutation(len(rows))[:limit].tolist()))
            result = evaluate_retrieval(encoder, rows, reranked=reranked)
            note = None if result.images == task.images else f"the field reports on {task.images:,} images"
            content["results"][task.name] = asdict(result) | {"note": note, "captions_sha256": found}
            with write_file(folder / RESULTS, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
    return content | {"results": {task.name: content["results"][task.name] for task in tasks}}


def _hash_captions(rows: Any) -> str:
    """Return the SHA-256 of all captions of a data set, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row["caption"]).encode() + b"\n")
    return digest.hexdigest()


def _check_same_data(path: Path, result: dict[str, Any] | None, task: RetrievalTask, captions: str) -> None:
    """Refuse a result of other data.

    Raises:
        ValueError: it was measured on other captions.
    """
    if result is not None and result.get("captions_sha256") != captions:
        raise ValueError(
            f"{path} has the recall of {task.name} with other captions than those of {task.word.partition(':')[2]}. "
            "Give another folder, or remove it."
        )


def _resume(path: Path, described: dict[str, Any]) -> dict[str, Any]:
    """Return the content of an earlier run with the same model and options, or that of a new one."""
    if not path.is_file():
        return described | {"results": {}}
    try:
        content = json.loads(path.read_text("utf-8"))
        differences = [explain_differences(content[name], described[name]) for name in described]
        if not isinstance(content["results"], dict):
            raise TypeError("results must be an object")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}. Remove it to measure again.") from error
    if found := "; ".join(one for one in differences if one):
        raise ValueError(f"{path} was written with something else: {found}. Give another folder, or remove it.")
    return content


def format_results(content: dict[str, Any]) -> str:
    """Return results of `evaluate_tasks` as lines of text."""
    lines: list[str] = []
    for name, result in content["results"].items():
        note = f" ({result['note']})" if result["note"] else ""
        lines.append(f"{name}: {result['images']:,} images, {result['texts']:,} captions{note}")
        if skipped := result["skipped"]:
            lines.append(f"  {len(skipped):,} more could not be read: {'; '.join(skipped[:3])}")
        for kind in ("contrast", "reranked"):
            if result[kind] is not None:
                label = "similarity" if kind == "contrast" else f"the best {content['options']['reranked']} re-ranked"
                lines.append(f"  by {label}")
                lines += [
                    f"    {metric:<20} {value:5.1f}  ({low:.1f} to {high:.1f})"
                    for metric, (value, low, high) in result[kind].items()
                ]
    return "\n".join(lines)
