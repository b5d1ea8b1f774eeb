"""Table of all evaluated models in Markdown: mean and spread over the seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..ablations import VARIANTS
from ..world.cases import KINDS

SEEDS = (0, 1, 2)
_BASELINES = {"majority": "most frequent answer", "random": "answer to a random question"}


def format_table(folder: Path) -> str:
    """Return the table of the models in a folder.

    Raises:
        ValueError: the folder holds no results.
    """
    results = {
        name: [json.loads(file.read_text()) for file in sorted(folder.glob(f"{name}-*/evaluation/results.json"))]
        for name in VARIANTS
    }
    results = {name: of_seeds for name, of_seeds in results.items() if of_seeds}
    if not results:
        raise ValueError(f"{folder} holds no results: evaluate a model there first.")
    measured = {kind for of_seeds in results.values() for result in of_seeds for kind in result["accuracy"]}
    kinds = [kind for kind in KINDS if kind in measured]  # earlier recipes asked fewer kinds of questions
    lines = [f"| | {' | '.join(kinds)} | seeds |", f"|---|{'---:|' * (len(kinds) + 1)}"]
    for name, of_seeds in results.items():
        cells = [_mean_and_spread([result["accuracy"][kind] for result in of_seeds]) for kind in kinds]
        lines.append(f"| {VARIANTS[name].title} | {' | '.join(cells)} | {len(of_seeds)} |")
    guessing = next(iter(results.values()))[0]["guessing"]  # does not depend on the model
    for name, title in _BASELINES.items():
        cells = [f"{guessing[name][kind]:.1f}" for kind in kinds]
        lines.append(f"| {title} | {' | '.join(cells)} | |")
    return "\n".join(lines) + "\n"


def _mean_and_spread(values: Sequence[float]) -> str:
    """Return the mean, and half of the range."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{np.mean(values):.1f} ± {(max(values) - min(values)) / 2:.1f}"
