"""The page of a report: what was evaluated, the scores of all tasks, and a part for each."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .cards import choose_worst, draw_cards
from .charts import draw_bars
from .style import frame, table

if TYPE_CHECKING:
    from ..run_folder import RunFolder

_PLOTTED = 20  # groups of a kind; a table has the others
_DIGITS = 12  # of a fingerprint


def compose_report(folder: RunFolder, results: Mapping[str, Any]) -> str:
    """Return the page of an evaluation.

    Args:
        folder: folder of the evaluation, with the samples of the units.
        results: content of `results.json`.
    """
    units: Sequence[Mapping[str, Any]] = list(results["tasks"].values())
    parts = [_write_head(results), "<h2>Scores</h2>", _write_scores(units)]
    parts += [_write_unit(folder, unit) for unit in units]
    return frame(f"Evaluation of {results['model']['name']}", "\n".join(parts))


def show_score(unit: Mapping[str, Any]) -> str:
    """Return the score of a unit with its interval as text."""
    if unit["score"] is None:
        return "no score"
    first = next(iter(unit["values"].values()))
    return f"{unit['score']:.1f} {show_interval(first['interval'])}"


def show_interval(interval: Sequence[float | None]) -> str:
    """Return an interval as text; nothing for an unknown one."""
    low, high = interval
    return "" if low is None or high is None else f"[{low:.1f}, {high:.1f}]"


def _write_head(results: Mapping[str, Any]) -> str:
    model, refiner = results["model"], results["refiner"]
    facts = [f"{model['type']}, {model['dtype']}, fingerprint {model['fingerprint'][:_DIGITS]}"]
    if refiner is None:
        facts.append("no visual refiner")
    else:
        facts.append(f"visual refiner {(refiner['fingerprint'] or 'unknown')[:_DIGITS]}")
    facts.append(", ".join(f"{name} {version}" for name, version in results["versions"].items() if version))
    listed = "<br>".join(map(html.escape, facts))
    return f'<h1>Evaluation of {html.escape(model["name"])}</h1>\n<p class="muted">{listed}</p>'


def _write_scores(units: Sequence[Mapping[str, Any]]) -> str:
    columns = ["task", "metric", "score", "95 % interval", "samples", "unparseable", "failed", "left out"]
    rows = []
    for unit in units:
        first = next(iter(unit["values"].values()), {"interval": (None, None)})
        name = next(iter(unit["values"]), unit["metric"])
        score = "no score" if unit["score"] is None else f"{unit['score']:.1f}"
        counts = [unit["samples"], unit["unparseable"], unit["failed"], sum(unit["omitted"].values())]
        rows.append(
            [
                f'<a href="#{_anchor(unit)}">{html.escape(unit["title"])}</a>',
                html.escape(name if name == unit["metric"] else f"{name} ({unit['metric']}, {unit['variant']})"),
                score,
                show_interval(first["interval"]),
                *(f"{count:,}" for count in counts),
            ]
        )
    plotted = [
        {"name": unit["title"], "samples": unit["scored"], **next(iter(unit["values"].values()))}
        for unit in units
        if unit["values"] and unit["score"] is not None and unit["score"] <= 100
    ]
    chart = draw_bars(plotted, "Scores of all tasks") if len(plotted) > 1 else ""
    return f"{table(columns, rows, 2)}\n{chart}"


def _anchor(unit: Mapping[str, Any]) -> str:
    return html.escape(unit["name"].replace("/", "-"), quote=True)


def _write_unit(folder: RunFolder, unit: Mapping[str, Any]) -> str:
    """Return the part of a unit: values, facts, groups, and the worst samples."""
    parts = [f'<h2 id="{_anchor(unit)}">{html.escape(unit["title"])}</h2>']
    if unit["values"]:
        rows = [
            [
                html.escape(name),
                f"{one['value']:.1f}" if one["value"] is not None else "-",
                show_interval(one["interval"]),
            ]
            for name, one in unit["values"].items()
        ]
        parts.append(table([f"{unit['metric']} ({unit['variant']})", "value", "95 % interval"], rows, is_narrow=True))
    parts.append(_write_facts(unit))
    parts += [_write_groups(kind, groups) for kind, groups in unit["groups"].items()]
    if worst := choose_worst(folder.samples(unit["name"])):
        hint = " The box that is asked for is green, and those of the answer are orange." if "box" in worst[0] else ""
        parts.append(f'<h3>Worst samples</h3>\n<p class="muted">Lowest scores first.{hint}</p>')
        parts.append(draw_cards(worst, folder.root_of(unit["name"])))
    return "\n".join(parts)


def _write_facts(unit: Mapping[str, Any]) -> str:
    decoding = ", ".join(f"{name} {value}" for name, value in unit["decoding"].items())
    facts = [f"Prompt: <code>{html.escape(unit['prompt'])}</code>", f"Decoding: greedy, {html.escape(decoding)}."]
    if unit["decoding"].get("num_beams", 1) > 1:
        facts[1] = f"Decoding: beams, {html.escape(decoding)}."
    if unit["cut_at_the_longest"]:
        facts.append(f"{unit['cut_at_the_longest']:,} answers were cut at the largest length.")
    if unit.get("judge"):
        facts.append(f"Judge: {html.escape(unit['judge'])}, asked in both orders.")
    facts += [html.escape(note) for note in unit["notes"]]
    return "<ul>" + "".join(f"<li>{fact}</li>" for fact in facts) + "</ul>"


def _write_groups(kind: str, groups: Sequence[Mapping[str, Any]]) -> str:
    """Return the plot of the groups of a kind; of many the largest ones, and a table of all."""
    title = f"By {kind}"
    shown = groups
    more = ""
    if len(groups) > _PLOTTED:
        largest = sorted(groups, key=lambda group: -group["samples"])[:_PLOTTED]
        shown = [group for group in groups if group in largest]
        rows = [
            [html.escape(one["name"]), f"{one['value']:.1f}", show_interval(one["interval"]), f"{one['samples']:,}"]
            for one in groups
        ]
        listed = table([kind, "value", "95 % interval", "samples"], rows, is_narrow=True)
        more = f"<details><summary>All {len(groups)} groups</summary>{listed}</details>"
    return f"<h3>{html.escape(title)}</h3>\n{draw_bars(shown, title)}{more}"
