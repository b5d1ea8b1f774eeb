"""Comparison of two evaluations: is a difference more than chance, and which samples changed?"""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .evaluate import read_results
from .metrics.bootstrap import paired_bootstrap
from .report.cards import SHOWN, draw_cards
from .report.style import frame, table
from .run_folder import RunFolder, write_json, write_text

LEVEL = 0.05  # p-value below which a difference is told as more than chance
_SAME = 1e-9


@dataclass(frozen=True)
class UnitComparison:
    """Two evaluations of one unit, on the samples that both have scores for.

    Attributes:
        name: str, name of the unit, `TASK/SPLIT`.
        title: str, name for people.
        samples: int, number of samples that are compared.
        before, after: floats, mean scores of the samples in percent.
        difference: float, `after - before`.
        interval: tuple of the ends of its 95 % interval.
        p_value: float, probability of such a difference between equal models.
        left_out: int, number of samples that only one of both has a score for.
        notes: list of sentences about what makes both less comparable.
        better, worse: lists of the samples that changed, each a dictionary of `id`, `prompt`, `before` and `after`.
    """

    name: str
    title: str
    samples: int
    before: float
    after: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    left_out: int
    notes: list[str]
    better: list[dict[str, Any]] = field(repr=False)
    worse: list[dict[str, Any]] = field(repr=False)

    @property
    def verdict(self) -> str:
        """What the difference says, in words."""
        if self.p_value >= LEVEL:
            return "no more than chance"
        return "better" if self.difference > 0 else "worse"


@dataclass(frozen=True)
class Comparison:
    """Two evaluations.

    Attributes:
        names: tuple of the names of both models.
        units: list of what both have in common.
        only_one: list of the names of units that only one of both has.
        folders: tuple of the folders of both.
    """

    names: tuple[str, str]
    units: list[UnitComparison]
    only_one: list[str]
    folders: tuple[Path, Path]

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        units = {unit.name: {**asdict(unit), "verdict": unit.verdict} for unit in self.units}
        return {"names": list(self.names), "tasks": units, "only_one": self.only_one}

    def describe(self) -> str:
        """Return the differences as lines of text, with the first samples that changed."""
        lines = [f"{self.names[0]} -> {self.names[1]}, mean score of the samples that both have"]
        for unit in self.units:
            low, high = unit.interval
            lines.append(
                f"{unit.name}: {unit.before:.1f} -> {unit.after:.1f}, {unit.difference:+.1f} "
                f"[{low:+.1f}, {high:+.1f}], p = {unit.p_value:.3g}: {unit.verdict} "
                f"({unit.samples:,} samples, {len(unit.better):,} better, {len(unit.worse):,} worse)"
            )
            lines += [f"  note: {note}" for note in unit.notes]
            for mark, changed in (("+", unit.better), ("-", unit.worse)):
                lines += [
                    f"  {mark} {one['id']}: {_quote(one['before'])} -> {_quote(one['after'])}" for one in changed[:3]
                ]
        if self.only_one:
            lines.append(f"Only one of both has {', '.join(self.only_one)}.")
        return "\n".join(lines)

    def write(self, out: str | os.PathLike[str]) -> None:
        """Write `comparison.json` and `comparison.html`, which shows the samples that changed."""
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "comparison.json", self.as_dict())
        write_text(folder / "comparison.html", self._page())

    def _page(self) -> str:
        first, second = map(html.escape, self.names)
        columns = ["task", "verdict", first, second, "difference", "95 % interval", "p", "samples"]
        rows = [
            [
                html.escape(unit.title),
                f'<span class="{_COLORS.get(unit.verdict, "muted")}">{unit.verdict}</span>',
                f"{unit.before:.1f}",
                f"{unit.after:.1f}",
                f"{unit.difference:+.1f}",
                f"[{unit.interval[0]:+.1f}, {unit.interval[1]:+.1f}]",
                f"{unit.p_value:.3g}",
                f"{unit.samples:,}",
            ]
            for unit in self.units
        ]
        parts = [f"<h1>{first} and {second}</h1>", table(columns, rows, 2)]
        parts.append(
            '<p class="muted">Mean scores of the samples that both have, in percent. Intervals by paired bootstrap, '
            "p by sign flips.</p>"
        )
        runs = RunFolder(self.folders[0])
        for unit in self.units:
            parts.append(f"<h2>{html.escape(unit.title)}</h2>")
            parts += [f"<p>{html.escape(note)}</p>" for note in unit.notes]
            for title, changed in (("Better", unit.better), ("Worse", unit.worse)):
                cards = [_card(one, self.names) for one in changed[:SHOWN]]
                shown = f" ({len(cards)} of {len(changed):,})" if len(changed) > len(cards) else ""
                parts.append(f"<h3>{title}: {len(changed):,} samples{shown}</h3>")
                parts += [draw_cards(cards, runs.root_of(unit.name))] if cards else []
        return frame(f"{self.names[0]} and {self.names[1]}", "\n".join(parts))


_COLORS = {"better": "good", "worse": "bad"}


def compare_runs(before: str | os.PathLike[str], after: str | os.PathLike[str]) -> Comparison:
    """Compare two evaluations.

    Args:
        before, after: folders of evaluations.

    Raises:
        ValueError: a folder holds no results, or both have no scored task in common.
    """
    folders = Path(before), Path(after)
    results = [read_results(folder) for folder in folders]
    common = [name for name in results[0]["tasks"] if name in results[1]["tasks"]]
    units = [_compare_unit(name, folders, [one["tasks"][name] for one in results]) for name in common]
    compared = [unit for unit in units if unit is not None]
    if not compared:
        every = [", ".join(one["tasks"]) or "nothing" for one in results]
        raise ValueError(
            f"{before} and {after} have no scored task in common: one has {every[0]}, the other {every[1]}."
        )
    only_one = sorted(results[0]["tasks"].keys() ^ results[1]["tasks"].keys())
    names = results[0]["model"]["name"], results[1]["model"]["name"]
    if names[0] == names[1]:
        names = folders[0].name or str(folders[0]), folders[1].name or str(folders[1])
    return Comparison(names, compared, only_one, folders)


def _compare_unit(name: str, folders: Sequence[Path], results: Sequence[Mapping[str, Any]]) -> UnitComparison | None:
    first, second = ({line["id"]: line for line in RunFolder(folder).samples(name)} for folder in folders)
    scored = [{key: line for key, line in lines.items() if line.get("score") is not None} for lines in (first, second)]
    keys = [key for key in scored[0] if key in scored[1] and _asks_the_same(scored[0][key], scored[1][key])]
    if not keys:
        return None
    scores = [[100 * lines[key]["score"] for key in keys] for lines in scored]
    found = paired_bootstrap(*scores)
    changes = [(scores[1][place] - scores[0][place], key) for place, key in enumerate(keys)]
    lines = {key: _changed(scored[0][key], scored[1][key]) for change, key in changes if abs(change) > _SAME}
    better = [lines[key] for change, key in sorted(changes, key=lambda one: -one[0]) if change > _SAME]
    worse = [lines[key] for change, key in sorted(changes, key=lambda one: one[0]) if change < -_SAME]
    left_out = len(scored[0].keys() | scored[1].keys()) - len(keys)
    return UnitComparison(
        name,
        results[0]["title"],
        len(keys),
        sum(scores[0]) / len(keys),
        sum(scores[1]) / len(keys),
        found.value,
        (found.low, found.high),
        found.p_value,
        left_out,
        _notes(results, left_out),
        better,
        worse,
    )


def _asks_the_same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two lines with one id have the same images and references."""
    return all(first.get(name) == second.get(name) for name in ("images", "answers", "box"))


def _notes(results: Sequence[Mapping[str, Any]], left_out: int) -> list[str]:
    """Return what makes two results less comparable: samples, prompts, decoding, the metric's variant, the judge."""
    notes = [f"{left_out:,} samples are left out, for which one of both has no score."] if left_out else []
    for name, title in (
        ("prompt", "The prompts"),
        ("decoding", "The options of decoding"),
        ("metric", "The metrics"),
        ("variant", "The variants of the metric"),
        ("judge", "The judges"),
    ):
        if results[0].get(name) != results[1].get(name):
            notes.append(f"{title} differ: {results[0].get(name)!r} and {results[1].get(name)!r}.")
    return notes


def _changed(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample that changed: what was asked, the reference, and both answers with their scores and boxes."""
    names = ("id", "images", "prompt", "answers", "box")
    line = {name: second[name] for name in names if name in second}
    line |= {"before": first["answer"], "after": second["answer"]}
    line |= {"scores": [first["score"], second["score"]]}
    return line | ({"boxes": second["boxes"]} if "boxes" in second else {})


def _card(line: Mapping[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """Return the line of a card with both answers."""
    titles = ("before", "after") if names[0] == names[1] else names
    said = {f"{titles[0]}, score {100 * line['scores'][0]:.0f}": line["before"]}
    said[f"{titles[1]}, score {100 * line['scores'][1]:.0f}"] = line["after"]
    return {**line, "said": said}


def _quote(text: str) -> str:
    short = " ".join(text.split())
    return repr(short if len(short) <= 60 else f"{short[:57]}...")
