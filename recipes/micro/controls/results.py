"""Files of results: which answers of a cell were right, and what the cell cost; intervals of their means."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ....utils.atomic_files import write_file
from ..report.measurements import half_interval

# Student's t for 95 % by the number of values
_STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


@dataclass
class Result:
    """Result of a cell.

    Attributes:
        name: name of the cell.
        seed: its seed.
        cost: steps and seconds of processor time of each training.
        answers: characters by set of questions and by kind, one for each question: 1 if its answer is right.
        evaluation_seconds: processor time of the evaluation.
        notes: further facts.
    """

    name: str
    seed: int
    cost: Mapping[str, Any]
    answers: Mapping[str, Mapping[str, str]]
    evaluation_seconds: float
    notes: dict[str, Any] = field(default_factory=dict)

    def right(self, questions: str, kind: str) -> np.ndarray:
        """Return which answers to questions of a kind are right, float array of shape (N,)."""
        return as_array(self.answers[questions][kind])


class Estimate(NamedTuple):
    """Percentage, or difference of percentages, with half of its 95 % interval."""

    percent: float
    half: float

    def __str__(self) -> str:
        return f"{self.percent:.0f} ± {self.half:.0f}"


def as_array(bits: str) -> np.ndarray:
    """Return bits as a float array."""
    return np.frombuffer(bits.encode(), np.uint8).astype(float) - ord("0")


def estimate(of_seeds: Sequence[np.ndarray]) -> Estimate:
    """Return the percentage of right answers of a model with some seeds.

    The interval is Wilson's over the questions. With several seeds, Student's over the seeds is added, as variances
    are.

    Args:
        of_seeds: sequence of float arrays of shape (N,), one for each seed, over the same questions.
    """
    means = [100 * float(one.mean()) for one in of_seeds]
    percent = float(np.mean(means))
    return Estimate(percent, math.hypot(half_interval(percent, len(of_seeds[0])), _half_of_seeds(means)))


def paired_difference(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Estimate:
    """Return by how many points the second model is better than the first, on the same questions, seed by seed.

    With several seeds, the interval is Student's over the differences of the seeds. With one seed, it is over the
    differences of the questions.
    """
    differences = [after - before for before, after in zip(first, second, strict=True)]
    means = [100 * float(one.mean()) for one in differences]
    if len(means) > 1:
        return Estimate(float(np.mean(means)), _half_of_seeds(means))
    one = differences[0]
    return Estimate(means[0], 196 * float(one.std(ddof=1)) / math.sqrt(len(one)) if len(one) > 1 else 100.0)


def _half_of_seeds(means: Sequence[float]) -> float:
    """Return half of Student's 95 % interval of the mean of some values, 0 for a single one."""
    if len(means) < 2:
        return 0.0
    student = _STUDENT.get(len(means), 1.96)
    return student * float(np.std(means, ddof=1)) / math.sqrt(len(means))


def write_result(file: Path, result: Result) -> None:
    """Write a result. The file appears when it is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_file(file, "w") as opened:
        opened.write(json.dumps(asdict(result), indent=1) + "\n")


def read_results(folder: Path) -> dict[str, list[Result]]:
    """Return the results of a folder by the name of their cell, in the order of their seeds."""
    found = [Result(**json.loads(file.read_text())) for file in sorted(folder.glob("*.json"))]
    by_name: dict[str, list[Result]] = {}
    for result in sorted(found, key=lambda one: one.seed):
        by_name.setdefault(result.name, []).append(result)
    return by_name
