"""The samples of a unit, read by the readers of the catalog, with what was left out."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...datasets_lyrics.catalog.folder import Split
from ...datasets_lyrics.catalog.formats import Row
from ...datasets_lyrics.catalog.messages import LETTERS
from ...datasets_lyrics.catalog.reading import CatalogReader
from ...datasets_lyrics.catalog.registry import find_format, open_reader
from ...datasets_lyrics.catalog.row_store import guard_of
from ...datasets_lyrics.path_guard import PathGuard
from ...utils.run_record import hash_row
from ...utils.seeding import stable_hash
from ..samples import Sample
from .custom import CUSTOM
from .scoring import METRICS
from .table import AS_IT_IS, LETTER
from .units import Unit

_SLOTS = re.compile(r"(\{question\}|\{choices\})")


@dataclass(frozen=True)
class TaskData:
    """The samples of a unit.

    Attributes:
        unit: unit, whose metric is that of the rows.
        samples: list of samples, in the order of the files.
        guard: rule for the paths of images.
        omitted: number of records that were left out, by kind of fault.
        notes: list of sentences about what was left out, and about a size that is not what the field reports.
    """

    unit: Unit
    samples: Sequence[Sample]
    guard: PathGuard
    omitted: dict[str, int]
    notes: list[str]

    def hashes(self) -> list[str]:
        """Return a short hash of each sample: its question, reference, image's path and image's size in bytes."""
        sizes: dict[str, int] = {}
        found = []
        for sample in self.samples:
            for path in sample.images:
                if path not in sizes:
                    sizes[path] = self._size(path)
            facts = [sample.id, sample.images, [sizes[path] for path in sample.images], sample.question]
            facts += [sample.answers, sample.choices, sample.box]
            found.append(hash_row(facts))
        return found

    def _size(self, path: str) -> int:
        try:
            return os.path.getsize(self.guard.check_path(path))
        except (OSError, ValueError):
            return -1


def read_task(unit: Unit, limit: int | None = None, image_root: str | os.PathLike[str] | None = None) -> TaskData:
    """Read the samples of a unit.

    Args:
        unit: unit.
        limit: int, number of samples to draw, the same ones each time; `None` for all. Images whose questions belong
            together are drawn as a whole.
        image_root: further folder that links of images may lead to.

    Raises:
        FileNotFoundError: a file or a folder is missing; the message says what to download, and where to put it.
        ValueError: no record can be used.
    """
    reader = _open(unit)
    try:
        rows = [row for row in reader if row.task in unit.source.tasks]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} {_where_to_put(unit)}") from error
    if not rows:
        raise ValueError(f"{unit.name} has no row of the kind {' or '.join(unit.source.tasks)} in {unit.root}.")
    if unit.task.name == "custom":
        unit = _choose_metric(unit, rows)
    chosen = _draw(rows, limit, unit.task.per_picture)
    samples = _with_unique_ids(_sample(row, unit.task.prompt) for row in chosen)
    summary = reader.summary
    assert summary is not None
    root = str(reader.folder.root)  # results and reports name no path of a machine
    notes = [note.replace(f" in {root}", "").replace(root, "the data's folder") for note in summary.notes(reader)]
    if limit is not None and len(chosen) < len(rows):
        notes.append(f"{unit.name}: a draw of {len(chosen):,} of {len(rows):,} samples.")
    return TaskData(unit, samples, guard_of(reader, image_root), dict(summary.omissions.counts), notes)


def _open(unit: Unit) -> CatalogReader:
    try:
        if unit.task.name != "custom":
            return open_reader(unit.source.data, unit.root, unit.source.split)
        if unit.root.is_file():
            split = Split((unit.root.name.replace("[", "[[]"),))
            return CatalogReader(replace(CUSTOM, splits={"all": split}), unit.root.parent, "all", unit.root.name)
        return CatalogReader(CUSTOM, unit.root)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} {_where_to_put(unit)}") from error


def _where_to_put(unit: Unit) -> str:
    if unit.task.name == "custom":
        return "`custom` reads a .jsonl file: custom:FILE."
    data = find_format(unit.source.data)
    return f"{unit.name} needs {data.get}. Images: {data.layout} (see `lyrics data list --family '{data.family}'`)."


def _choose_metric(unit: Unit, rows: Sequence[Row]) -> Unit:
    """Return the unit of one's own questions with the metric and the prompt that its rows have, if none was chosen.

    Raises:
        ValueError: rows are of several kinds, or do not fit the metric.
    """
    kinds = Counter(row.task for row in rows)
    usual = {"locate": "iou", "choice": "multiple_choice", "vqa": "exact_match"}
    metric = unit.task.metric
    is_default = metric is METRICS["exact_match"]
    if len(kinds) > 1:
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        raise ValueError(f"{unit.root} mixes rows of several kinds ({listed}): write one file for each.")
    (kind,) = kinds
    if is_default:
        metric = METRICS[usual[kind]]
    needs = {id(METRICS["iou"]): "locate", id(METRICS["multiple_choice"]): "choice"}.get(id(metric), "vqa")
    if needs != kind:
        have = {"locate": "boxes", "choice": "choices", "vqa": "answers"}
        raise ValueError(f"{unit.root} has rows with {have[kind]}, and {metric.name} needs {have[needs]}.")
    if metric is METRICS["vqa_accuracy"] and any(len(row.answers) < 2 for row in rows):
        raise ValueError(f"{unit.root}: VQA accuracy needs the answers of several people in `answers`.")
    if metric is METRICS["yes_no"] and (odd := [row for row in rows if row.answers[0].lower() not in ("yes", "no")]):
        raise ValueError(f"{unit.root}: the answer of {odd[0].id} is {odd[0].answers[0]!r:.40}, and not yes or no.")
    prompt = LETTER if kind == "choice" and unit.task.prompt == AS_IT_IS else unit.task.prompt
    return replace(unit, task=replace(unit.task, metric=metric, prompt=prompt))


def _draw(rows: Sequence[Row], limit: int | None, per_picture: bool) -> Sequence[Row]:
    """Return the rows that come first in an order that their ids decide, in the order of the files."""
    if limit is None or limit >= len(rows):
        return rows
    keys = [
        (row.groups.get("subtask", ""), row.images[0]) if per_picture else (row.id, str(row.images)) for row in rows
    ]
    order = sorted(range(len(rows)), key=lambda number: (stable_hash("evaluation", *keys[number]), number))
    if per_picture:  # up to the end of the image that reaches the limit
        while limit < len(rows) and keys[order[limit]] == keys[order[limit - 1]]:
            limit += 1
    return [rows[number] for number in sorted(order[:limit])]


def _draw_key(row: Row, per_picture: bool) -> tuple[str, str]:
    """Return what decides the place of a row in the order of the draw."""
    return (row.groups.get("subtask", ""), row.images[0]) if per_picture else (row.id, str(row.images))


def _sample(row: Row, prompt: str) -> Sample:
    region = row.regions[0] if row.task == "locate" else None
    question = row.question if region is None else region.phrase
    choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, row.choices, strict=False))
    words = {"{question}": question, "{choices}": choices}
    text = "".join(words.get(part, part) for part in _SLOTS.split(prompt))  # once: a question may hold braces itself
    return Sample(
        row.id,
        tuple(row.images),
        text.strip(),
        question,
        tuple(row.answers),
        tuple(row.choices),
        None if region is None else (region.box[0], region.box[1], region.box[2], region.box[3]),
        row.groups,
    )


def _with_unique_ids(samples: Iterable[Sample]) -> list[Sample]:
    """Return samples of which none has the id of an earlier one."""
    seen: Counter[str] = Counter()
    unique = []
    for sample in samples:
        seen[sample.id] += 1
        count = seen[sample.id]
        unique.append(sample if count == 1 else replace(sample, id=f"{sample.id}#{count}"))
    return unique
