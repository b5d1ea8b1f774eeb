"""Mean scores in percent, over all samples and per group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import fsum


def percent(scores: Sequence[float]) -> float:
    """Return the mean of scores in [0, 1] as percent; NaN without scores."""
    return 100 * fsum(scores) / len(scores) if len(scores) else float("nan")


def summarize_scores(
    scores: Sequence[float], *, groups: Sequence[str] | None = None, name: str = "accuracy"
) -> dict[str, float]:
    """Return the mean score in percent, over all samples and per group.

    Args:
        scores: sequence of N floats in [0, 1].
        groups: sequence of N str, group of each sample; `None` omits the groups.
        name: str, key of the mean over all samples; a group has the key "<name>, <group>".

    Raises:
        ValueError: there are more or fewer groups than scores.
    """
    result = {name: percent(scores)}
    if groups is not None:
        if len(groups) != len(scores):
            raise ValueError(f"Each score needs a group, but there are {len(scores)} scores and {len(groups)} groups.")
        by_group: defaultdict[str, list[float]] = defaultdict(list)
        for group, score in zip(groups, scores, strict=True):
            by_group[group].append(score)
        result |= {f"{name}, {group}": percent(members) for group, members in sorted(by_group.items())}
    return result
