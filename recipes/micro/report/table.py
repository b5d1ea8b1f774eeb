"""The results of all models that were trained as one table, in Markdown: mean and spread over the seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..ablations import VARIANTS
from ..evaluate import KINDS

SEEDS = (0, 1, 2)
_GUESSES = {"majority": "most frequent answer", "random": "answer to a random question"}


def read_results(folder: Path, name: str) -> list[dict[str, Any]]:
    """Results of a variant, one for each seed that has been evaluated."""
    found = sorted(folder.glob(f"{name}-*/evaluation/results.json"))
    return [json.loads(path.read_text()) for path in found]


def format_table(folder: Path) -> str:
    """The table.

    Raises:
        ValueError: when nothing has been evaluated.
    """
    results = {name: read_results(folder, name) for name in VARIANTS}
    every = [result for found in results.values() for result in found]
    if not every:
        raise ValueError(f"{folder} holds no results: no model has been evaluated there.")
    lines = [f"| | {' | '.join(KINDS)} | seeds |", f"|---|{'---:|' * (len(KINDS) + 1)}"]
    for name, found in results.items():
        if found:
            cells = [_mean_and_spread([result["accuracy"][kind] for result in found]) for kind in KINDS]
            lines.append(f"| {VARIANTS[name].title} | {' | '.join(cells)} | {len(found)} |")
    for name, title in _GUESSES.items():
        cells = [f"{every[0]['guessing'][name][kind]:.1f}" for kind in KINDS]
        lines.append(f"| {title} | {' | '.join(cells)} | |")
    return "\n".join(lines) + "\n"


def _mean_and_spread(values: Sequence[float]) -> str:
    """Mean, and half of the distance between the best and the worst."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{np.mean(values):.1f} ± {(max(values) - min(values)) / 2:.1f}"


def write_table(folder: Path, out: Path) -> None:
    """Write the table of everything that was evaluated in a folder."""
    out.write_text(format_table(folder))
