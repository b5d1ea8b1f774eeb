"""Bootstrap: how far a score would move with other samples of the same kind.

Samples are drawn with replacement, with a generator that depends on the seed alone: the same scores and seed give the
same interval.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_ELEMENTS = 4_000_000  # drawn at once: 32 MB

Statistic = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


class Interval(NamedTuple):
    """Value and its interval.

    Attributes:
        value: float, statistic of all samples.
        low: float, lower end of the interval.
        high: float, upper end of the interval.
    """

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Difference of two models on the same samples.

    Attributes:
        value: float, mean of the second minus mean of the first.
        low: float, lower end of the interval.
        high: float, upper end of the interval.
        p_value: float in (0, 1], two-sided, of a sign-flip test: probability of a difference at least this large
            between models of which either may be the better on each of the samples that changed.
    """

    value: float
    low: float
    high: float
    p_value: float


def bootstrap_interval(
    scores: Sequence[float] | npt.NDArray[Any], *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Return the mean of scores and its percentile interval.

    Args:
        scores: sequence of N floats; N 1 or more.
        confidence: float in (0, 1), probability that the interval covers.
        resamples: int, number of times that N samples are drawn.
        seed: int, seed of the draws.

    Raises:
        ValueError: there are no scores, one is not finite, or an option is out of range.
    """
    rows = np.column_stack([_finite(scores, 1), np.ones(len(scores))])
    return bootstrap_statistic(rows, _mean, confidence=confidence, resamples=resamples, seed=seed)


def bootstrap_statistic(
    rows: Sequence[Sequence[float]] | npt.NDArray[Any],
    statistic: Statistic,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return a statistic of a whole data set, and its percentile interval.

    The statistic has to be a function of sums over samples, as a mean, an F1, a BLEU or the points of MME are. Samples
    that belong together, such as the two questions of an image, are one row.

    Args:
        rows: float array of shape (N, K), what each sample adds to the K sums; N 1 or more.
        statistic: function from sums of shape (R, K) to values of shape (R,). Draws whose value is NaN, as with a zero
            denominator, are left out.
        confidence: float in (0, 1), probability that the interval covers.
        resamples: int, number of times that N samples are drawn.
        seed: int, seed of the draws.

    Raises:
        ValueError: there are no rows, a number is not finite, or an option is out of range.
    """
    _check_options(confidence, resamples)
    values = _finite(rows, 2)
    point = float(statistic(values.sum(0, keepdims=True))[0])
    drawn = np.concatenate([statistic(sums) for sums in _resampled_sums(values, resamples, seed)])
    low, high = _percentiles(drawn, confidence)
    return Interval(point, low, high)


def paired_bootstrap(
    first: Sequence[float] | npt.NDArray[Any],
    second: Sequence[float] | npt.NDArray[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Return how much better the second model is than the first on the same samples.

    Args:
        first: sequence of N floats, scores of the first model.
        second: sequence of N floats, scores of the second model on the same samples in the same order.
        confidence: float in (0, 1), probability that the interval covers.
        resamples: int, number of times that N samples are drawn for the interval, and signs of the differences for the
            p-value.
        seed: int, seed of the draws.

    Raises:
        ValueError: the lengths differ, there are no scores, one is not finite, or an option is out of range.
    """
    _check_options(confidence, resamples)
    before, after = _finite(first, 1), _finite(second, 1)
    if len(before) != len(after):
        raise ValueError(
            f"A paired comparison needs the same samples, but there are {len(before)} scores and {len(after)} scores."
        )
    differences = after - before
    value = float(differences.mean())
    drawn = np.concatenate(list(_resampled_sums(differences[:, None], resamples, seed)))[:, 0] / len(differences)
    low, high = _percentiles(drawn, confidence)
    return Difference(value, low, high, _sign_flip_test(differences, resamples, seed))


def _sign_flip_test(differences: npt.NDArray[np.float64], resamples: int, seed: int) -> float:
    """Return how often equal models, of which either may be the better on each sample, differ as much.

    Every way to choose signs counts where there are few; otherwise ways are drawn, the one that was seen among them.
    """
    changed = differences[differences != 0]
    observed = abs(changed.sum()) - 1e-12 * max(1.0, np.abs(changed).sum())
    if not len(changed):
        return 1.0
    if 2 ** len(changed) <= resamples:
        ways = np.array(list(itertools.product((-1.0, 1.0), repeat=len(changed))))
        return float((np.abs(ways @ changed) >= observed).mean())
    generator, extreme = np.random.default_rng(seed), 0
    at_once = max(1, _ELEMENTS // len(changed))
    for start in range(0, resamples, at_once):
        signs = generator.integers(0, 2, (min(at_once, resamples - start), len(changed)), np.int8)
        extreme += int((np.abs((2.0 * signs - 1) @ changed) >= observed).sum())
    return (extreme + 1) / (resamples + 1)


def _mean(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return sums of scores divided by their numbers."""
    return sums[:, 0] / sums[:, 1]


def _finite(values: Any, dimensions: int) -> npt.NDArray[np.float64]:
    """Return values as an array that the bootstrap takes."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or len(array) == 0:
        raise ValueError(f"The bootstrap needs 1 or more samples, but got an array of shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError("The bootstrap needs finite scores, but one is NaN or infinite.")
    return array


def _check_options(confidence: float, resamples: int) -> None:
    """Refuse options out of range."""
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` is between 0 and 1, such as 0.95, not {confidence}.")
    if resamples < 1:
        raise ValueError(f"`resamples` is 1 or more, not {resamples}.")


def _resampled_sums(rows: npt.NDArray[np.float64], resamples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the sums of rows drawn with replacement, a few draws at once, each of shape (R, K)."""
    generator = np.random.default_rng(seed)
    count = len(rows)
    at_once = max(1, _ELEMENTS // count)
    for start in range(0, resamples, at_once):
        number = min(at_once, resamples - start)
        drawn = generator.integers(0, count, (number, count))  # (R, N)
        weights = np.empty((number, count))
        for row, indices in zip(weights, drawn, strict=True):
            row[:] = np.bincount(indices, minlength=count)
        yield weights @ rows  # (R, K)


def _percentiles(drawn: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Return the ends of the central interval of drawn values; NaN where all are NaN."""
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
