"""How well a model answers and how well its refiner sees, in both worlds: measurements and their tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ....processing_lyrics import LyricsProcessor
from ..evaluate import answer_cases
from ..refiner.assemble import measure_refiner
from ..world.cases import KINDS, accuracies, draw_cases
from ..world.objects import Scene
from ..world.scenes import draw_test_scene
from ..world.second import draw_second_scene
from ..world.wordings import Wording

FIRST = 20_000  # number of the first scene; recipes were chosen with earlier ones

Draw = Callable[[int], Scene]
Percentages = Mapping[str, Mapping[str, float]]

_SATURATED: Draw = partial(draw_second_scene, grounds="saturated")
_TEXTURED: Draw = partial(draw_second_scene, grounds="textured")
_WIDE: Draw = partial(draw_second_scene, aspect_ratio=2.0)
_TALL: Draw = partial(draw_second_scene, aspect_ratio=1 / 3)

ANSWERS: Mapping[str, tuple[Draw, Wording]] = {
    "own world, plain wording": (draw_test_scene, "plain"),
    "own world, varied wording": (draw_test_scene, "varied"),
    "own world, unknown wording": (draw_test_scene, "unknown"),
    "second world, plain wording": (draw_second_scene, "plain"),
    "second world, unknown wording": (draw_second_scene, "unknown"),
    "second world, saturated grounds": (_SATURATED, "plain"),
    "second world, textured grounds": (_TEXTURED, "plain"),
    "second world, 2:1": (_WIDE, "plain"),
}
WORLDS: Mapping[str, Draw] = {
    "own world": draw_test_scene,
    "second world": draw_second_scene,
    "saturated": _SATURATED,
    "textured": _TEXTURED,
    "2:1": _WIDE,
    "1:3": _TALL,
}
_REFINER_ROWS = {
    "shapes_found": "shapes found",
    "characters_found": "characters found",
    "objects_right": "objects right",
    "scenes_counted": "scenes with as many shapes as objects",
    "box_overlap": "mean overlap of the boxes found (IoU)",
    "mask_overlap": "mean overlap of their masks (IoU)",
}


def measure_answers(model: Any, processor: LyricsProcessor, questions: int) -> dict[str, dict[str, float]]:
    """Return the percentages of right answers, by world and wording (keys of `ANSWERS`) and by kind.

    Args:
        model: `LyricsForConditionalGeneration`.
        processor: processor of the model.
        questions: number of questions of each kind in each row.
    """
    measured = {}
    for title, (draw, wording) in ANSWERS.items():
        cases = draw_cases(questions, draw, wording=wording, first=FIRST)
        measured[title] = accuracies(answer_cases(model, processor, cases))
    return measured


def measure_refiner_in_worlds(processor: LyricsProcessor, scenes: int) -> dict[str, dict[str, float]]:
    """Return what `measure_refiner` finds in each of `WORLDS`.

    Args:
        processor: processor with its refiner.
        scenes: number of scenes of each world.
    """
    return {title: measure_refiner(processor, draw, scenes, FIRST) for title, draw in WORLDS.items()}


def format_answers(measured: Percentages, questions: int) -> str:
    """Return the table of `measure_answers`, with half of each 95 % interval."""
    rows = [
        (title, [f"{values[kind]:.0f} ± {half_interval(values[kind], questions):.0f}" for kind in KINDS])
        for title, values in measured.items()
    ]
    return format_rows([kind.replace("_", " ") for kind in KINDS], rows)


def format_refiner(measured: Percentages) -> str:
    """Return the table of `measure_refiner_in_worlds`."""
    rows = [(title, [f"{values[key]:.1f}" for values in measured.values()]) for key, title in _REFINER_ROWS.items()]
    return format_rows(list(measured), rows)


def format_rows(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table in Markdown, from the titles of its columns, and the title and the cells of each row."""
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in rows]
    return "\n".join(lines) + "\n"


def half_interval(percent: float, count: int) -> float:
    """Return half of Wilson's 95 % interval of a percentage of `count` answers."""
    share, z = percent / 100, 1.96
    return 100 * z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
