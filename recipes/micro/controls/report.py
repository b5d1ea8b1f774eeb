"""Tables and figure of the controls, from the files of their results, written into the marked place of a page.

python -m lyrics.recipes.micro.controls.report                        # docs/micro.md, from docs/results
python -m lyrics.recipes.micro.controls.report --page page.md --figures figures
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....utils.atomic_files import write_file
from ....utils.training_curves import new_figure
from ..report.measurements import format_rows
from ..world.cases import KINDS
from .arms import ARMS, EVALUATIONS, SHIPPED, Arm
from .question_sets import HELD_OUT_KINDS, HELD_OUT_SET, OWN, SECOND
from .results import Estimate, Result, as_array, estimate, paired_difference, read_results
from .small_view import NAMES, read_named
from .stage1_worth import LOSSES, MQFORMER, QUERIES, ROWS, Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_RUN = "not run"
BEGIN, END = "<!-- controls: written by lyrics.recipes.micro.controls.report -->", "<!-- end of controls -->"
FIGURE = "micro_stage1_worth.png"
VISUAL_KINDS = tuple(kind for kind in KINDS if kind != "outside")  # which need the picture

_PAIR = ("all", "none")  # losses of first stages that are compared
_GUESSES = {"majority": "most frequent answer", "random": "answer to a random question"}
_STYLES = {"all": ("#0072b2", "o-"), "none": ("#000000", "s--")}
_OTHER_STYLES = (("#e69f00", "^-"), ("#009e73", "v-"), ("#cc79a7", "D-"), ("#d55e00", "P-"))

Results = Mapping[str, Sequence[Result]]


def format_report(controls: Results, worth: Results, named: Mapping[str, Mapping[str, str]]) -> str:
    """Return everything that the report writes, as Markdown.

    Args:
        controls: results of arms and evaluations, by name.
        worth: results about the first stage, by name.
        named: bits of the names that a small network reads, by world and kind; empty where it was not run.
    """
    parts = [
        "**The model that ships**, own world. Nothing is trained: only what it sees changes.",
        format_models(controls, EVALUATIONS, OWN, KINDS),
        "The same, second world.",
        format_models(controls, EVALUATIONS, SECOND, KINDS),
        "**Arms**, own world. Each is tuned for the same number of steps on the same rows.",
        format_models(controls, ARMS, OWN, KINDS),
        "Arms, second world.",
        format_models(controls, ARMS, SECOND, KINDS),
        "**What arms differ by from `full`**, in points, on the same questions: the mean of all kinds but `outside`.",
        format_differences(controls),
        "**What arms cost**: steps, seconds of one core for each in the fastest run, and million FLOP that encoder and "
        "refiner spend on a square drawing.",
        format_costs(controls),
        "**Combinations of color and shape that no training drawing is drawn with.**",
        format_models(controls, {**EVALUATIONS, **ARMS}, HELD_OUT_SET, HELD_OUT_KINDS),
        "By combination, for the model that ships: how many objects in 1,000 training drawings look like it, as they "
        "are drawn, and with the shifted hues of the segmenter's training; and right answers of all four kinds.",
        format_combinations(controls),
        "**What the view of 48 x 48 pixels holds**: names that a small network, taught by labels, reads from it.",
        format_view(named),
        "**What the first stage is worth**: the mean of all kinds but `outside`, own world, and the difference between "
        "a first stage with all losses and an untrained one, seed by seed.",
        format_worth(worth),
    ]
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def format_models(results: Results, models: Mapping[str, Arm], questions: str, kinds: Sequence[str]) -> str:
    """Return the table of right answers, in percent with half of the 95 % interval, and of guessing.

    Args:
        results: results by name.
        models: models of the rows.
        questions: name of the set of questions.
        kinds: kinds of questions, the columns.
    """
    rows = []
    for name, arm in models.items():
        of_seeds = results.get(name, ())
        seeds = str(len(of_seeds)) if name in ARMS else ""
        cells = [str(estimate([one.right(questions, kind) for one in of_seeds])) for kind in kinds if of_seeds]
        rows.append((arm.title, [*(cells or _not_run(len(kinds))), seeds]))
    guessed = results[SHIPPED][0].notes.get("guessing", {}) if SHIPPED in results else {}
    for name, title in _GUESSES.items():
        bits = guessed.get(questions, {}).get(name, {})
        cells = [str(estimate([as_array(bits[kind])])) for kind in kinds if bits]
        rows.append((title, [*(cells or _not_run(len(kinds))), ""]))
    return format_rows([*(kind.replace("_", " ") for kind in kinds), "seeds"], rows)


def _not_run(count: int) -> list[str]:
    """Return the cells of a row that was not run."""
    return [NOT_RUN, *[""] * (count - 1)]


def format_differences(results: Results) -> str:
    """Return the table of differences of the arms from `full`, in points, in both worlds."""
    rows = []
    for name, arm in ARMS.items():
        if name != "full":
            rows.append((arm.title, [_difference(results, "full", name, world) for world in (OWN, SECOND)]))
    return format_rows(["own world", "second world"], rows)


def _difference(results: Results, first: str, second: str, questions: str) -> str:
    """Return by how many points one model is better than another with the same seeds."""
    pairs = _pairs(results, first, second, questions)
    if not pairs:
        return NOT_RUN
    before, after = zip(*pairs, strict=True)
    return _signed(paired_difference(before, after))


def _pairs(results: Results, first: str, second: str, questions: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the answers of two models for each seed that both have."""
    of_first, of_second = ({one.seed: one for one in results.get(name, ())} for name in (first, second))
    return [
        (_all_right(of_first[seed], questions), _all_right(of_second[seed], questions))
        for seed in sorted(of_first.keys() & of_second)
    ]


def _all_right(result: Result, questions: str) -> np.ndarray:
    """Return which answers to all questions that need the picture are right; each kind has as many."""
    return np.concatenate([result.right(questions, kind) for kind in VISUAL_KINDS])


def _signed(difference: Estimate) -> str:
    return f"{'+' if difference.percent > 0 else ''}{difference.percent:.1f} ± {difference.half:.1f}"


def format_costs(results: Results) -> str:
    """Return the table of what each arm has cost, in the fastest of its runs: other work shares the processor."""
    rows = []
    for name, arm in ARMS.items():
        if name not in results:
            rows.append((arm.title, _not_run(4)))
            continue
        costs = [one.cost for one in results[name]]
        cells = [_cost([cost.get(step) for cost in costs]) for step in ("encoder", "stage1", "stage2")]
        mflop = costs[0].get("mflop")
        rows.append((arm.title, [*cells, f"{mflop['encoder']:.0f}; {mflop['refiner']:.0f}" if mflop else ""]))
    return format_rows(["encoder", "stage 1", "stage 2", "million FLOP: encoder; the refiner"], rows)


def _cost(of_runs: Sequence[Mapping[str, Any] | None]) -> str:
    trained = [one for one in of_runs if one is not None and one["steps"] is not None]
    if not trained:
        return "as it ships"
    fastest = min(trained, key=lambda one: one["seconds_per_step"])
    return f"{fastest['steps']} steps of {fastest['seconds_per_step']:.2f} s"


def format_combinations(results: Results) -> str:
    """Return the table of held-out combinations for the model that ships."""
    columns = ["drawn", "tinted", "right answers", "questions"]
    if SHIPPED not in results:
        return format_rows(columns, [(NOT_RUN, [""] * 4)])
    shipped = results[SHIPPED][0]
    named, seen = shipped.notes["combinations"], shipped.notes["seen"]
    rows = []
    for combination, counted in seen.items():
        right = np.concatenate(
            [shipped.right(HELD_OUT_SET, kind)[np.array(named[kind]) == combination] for kind in HELD_OUT_KINDS]
        )
        found = str(estimate([right])) if len(right) else NOT_RUN
        rows.append((combination, [str(counted["plain"]), str(counted["tinted"]), found, str(len(right))]))
    return format_rows(columns, rows)


def format_view(named: Mapping[str, Mapping[str, str]]) -> str:
    """Return the table of what a small network names right, by world and kind, and of a random name.

    Args:
        named: bits by world and kind, as `small_view` writes them.
    """
    rows = []
    for world, title in ((OWN, "own world"), (SECOND, "second world")):
        found = [str(estimate([as_array(named[world][kind])])) for kind in NAMES if named]
        rows.append((title, found or _not_run(len(NAMES))))
    rows.append(("a random name", [f"{100 / len(names):.0f}" for names in NAMES.values()]))
    return format_rows(list(NAMES), rows)


def format_worth(results: Results) -> str:
    """Return the table of what the first stage is worth, by rows, MQ-Former, queries and losses.

    Losses and rows of which no cell was run are left out.
    """
    shown = [losses for losses in LOSSES if losses in _PAIR or any(name.startswith(f"{losses}_") for name in results)]
    rows = []
    for mqformer, queries, count in itertools.product(MQFORMER, QUERIES, ROWS):
        names = {losses: Cell(losses, queries, mqformer, count).name for losses in shown}
        if not any(name in results for name in names.values()):
            continue
        pair = names["none"], names["all"]
        cells = [*(_mean(results, name) for name in names.values()), _difference(results, *pair, OWN)]
        rows.append((f"{mqformer}, {queries} queries, {count:,} rows", [*cells, str(len(_pairs(results, *pair, OWN)))]))
    columns = [*(losses.replace("_", " ") for losses in shown), "all - none", "seeds"]
    return format_rows(columns, rows or [(NOT_RUN, [""] * len(columns))])


def _mean(results: Results, name: str) -> str:
    """Return the percentage of right answers to all questions that need the picture."""
    found = _estimate_mean(results, name)
    return NOT_RUN if found is None else f"{found.percent:.1f} ± {found.half:.1f}"


def _estimate_mean(results: Results, name: str) -> Estimate | None:
    of_seeds = results.get(name)
    return estimate([_all_right(one, OWN) for one in of_seeds]) if of_seeds else None


def draw_worth(results: Results, out: Path) -> None:
    """Draw the percentage of right answers by rows of the second stage, a panel for each MQ-Former and queries.

    Args:
        results: results about the first stage, by name. What has none for two numbers of rows gets no
            panel.
        out: image file to write.
    """
    every = [(mqformer, queries) for mqformer in MQFORMER for queries in QUERIES]
    panels = [one for one in every if len(_measured(results, *one)) > 1] or every[:1]
    figure, grid = new_figure(1, len(panels), (2.5 + 4 * len(panels), 3.6))
    for axes, (mqformer, queries) in zip(grid.flat, panels, strict=True):
        _draw_curves(axes, results, mqformer, queries)
    figure.savefig(out, dpi=110, metadata={"Software": None})


def _measured(results: Results, mqformer: str, queries: str) -> list[int]:
    """Return the numbers of rows of which a cell was run."""
    return [rows for rows in ROWS if any(Cell(one, queries, mqformer, rows).name in results for one in LOSSES)]


def _draw_curves(axes: Axes, results: Results, mqformer: str, queries: str) -> None:
    others = iter(_OTHER_STYLES)
    for losses in LOSSES:
        color, style = _STYLES[losses] if losses in _STYLES else next(others)
        found = {rows: _estimate_mean(results, Cell(losses, queries, mqformer, rows).name) for rows in ROWS}
        points = [(rows, one.percent, one.half) for rows, one in found.items() if one is not None]
        if points:
            x, y, half = zip(*points, strict=True)
            title = {"all": "all losses", "none": "no stage 1"}.get(losses, losses.replace("_", " "))
            axes.errorbar(x, y, half, fmt=style, color=color, label=title, markersize=4, capsize=3)
    measured = _measured(results, mqformer, queries) or ROWS
    axes.set(
        title=f"MQ-Former {mqformer}, {queries} queries",
        xlabel="rows of stage 2",
        ylabel="right answers, %",
        xscale="log",
        xlim=(min(measured) / 1.4, max(measured) * 1.4),
        ylim=(0, 100),
        xticks=measured,
        xticklabels=[f"{rows:,}" for rows in measured],
    )
    axes.minorticks_off()
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, NOT_RUN, transform=axes.transAxes, ha="center")


def insert(page: str, text: str) -> str:
    """Replace what is between the marks of a page.

    Raises:
        ValueError: the page does not have both marks once, in their order.
    """
    if [page.count(BEGIN), page.count(END)] != [1, 1] or page.index(BEGIN) > page.index(END):
        raise ValueError(f"The page needs one line {BEGIN} and, after it, one line {END}.")
    place = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    return place.sub(lambda _: f"{BEGIN}\n\n{text}\n{END}", page)


def main() -> None:
    """Write the tables into the page, and the figure beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of the results' folders")
    parser.add_argument("--page", type=Path, default=Path("docs/micro.md"), help="page with the marks")
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"), help="folder of the figure")
    arguments = parser.parse_args()
    controls, worth = (read_results(arguments.results / name) for name in ("controls", "stage1_worth"))
    report = format_report(controls, worth, read_named(arguments.results / "small_view"))
    page = insert(arguments.page.read_text(), report)
    arguments.figures.mkdir(parents=True, exist_ok=True)
    draw_worth(worth, arguments.figures / FIGURE)
    with write_file(arguments.page, "w") as file:
        file.write(page)


if __name__ == "__main__":
    main()
