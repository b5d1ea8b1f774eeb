"""Intervals: their width, their coverage of known cases, and repeatability."""

import numpy as np
import pytest

from lyrics.evaluation.metrics import bootstrap
from lyrics.evaluation.metrics.bootstrap import bootstrap_interval, bootstrap_statistic, paired_bootstrap

SCORES = np.random.default_rng(0).random(500) < 0.3


def test_interval_of_a_share_is_that_of_the_normal_approximation():
    interval = bootstrap_interval(SCORES)
    half = 1.96 * np.sqrt(interval.value * (1 - interval.value) / len(SCORES))
    assert interval.value == SCORES.mean()
    assert interval.low == pytest.approx(interval.value - half, abs=0.01)
    assert interval.high == pytest.approx(interval.value + half, abs=0.01)


def test_same_seed_same_interval_however_many_are_drawn_at_once(monkeypatch):
    expected = bootstrap_interval(SCORES, seed=3)
    assert expected != bootstrap_interval(SCORES, seed=4)
    monkeypatch.setattr(bootstrap, "_ELEMENTS", 7 * len(SCORES))
    assert bootstrap_interval(SCORES, seed=3) == expected


def test_constant_scores_have_no_width():
    assert bootstrap_interval([0.5] * 20) == (0.5, 0.5, 0.5)
    assert bootstrap_interval([1.0]) == (1, 1, 1)


def test_statistic_of_sums_keeps_rows_together():
    rows = np.column_stack([SCORES, SCORES, np.full(500, 2)])  # two questions of an image, always answered alike
    of_images = bootstrap_statistic(rows, lambda sums: (sums[:, 0] + sums[:, 1]) / sums[:, 2])
    of_questions = bootstrap_interval(np.repeat(SCORES, 2))
    assert of_images.value == of_questions.value
    assert of_images.high - of_images.low > 1.2 * (of_questions.high - of_questions.low)


def test_draws_without_a_value_are_left_out():
    rows = [[1, 0], [0, 1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        interval = bootstrap_statistic(rows, lambda sums: np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan))
    assert interval == (1, 0, 1)


def test_equal_models_do_not_differ_and_better_ones_do():
    better = np.maximum(SCORES, np.random.default_rng(1).random(500) < 0.1)
    difference = paired_bootstrap(SCORES, better, resamples=2000)
    assert difference.value == pytest.approx(better.mean() - SCORES.mean())
    assert difference.low > 0
    assert difference.p_value < 0.01
    assert paired_bootstrap(SCORES, SCORES, resamples=100).p_value == 1
    reverse = paired_bootstrap(better, SCORES, resamples=2000)
    assert (reverse.value, reverse.p_value) == (pytest.approx(-difference.value), difference.p_value)


@pytest.mark.parametrize(
    ("better", "worse", "equal", "p_value"),
    [
        (1, 0, 0, 1.0),
        (1, 0, 99, 1.0),
        (3, 0, 0, 0.25),
        (4, 0, 6, 0.125),
        (5, 0, 15, 0.0625),
        (6, 0, 0, 0.03125),
        (0, 6, 5, 0.03125),
        (6, 1, 0, 0.125),
        (0, 0, 4, 1.0),
    ],
)
def test_few_changes_are_counted_exactly(better, worse, equal, p_value):
    """As the sign test counts them."""
    first = [0] * better + [1] * worse + [1] * equal
    second = [1] * better + [0] * worse + [1] * equal
    assert paired_bootstrap(first, second).p_value == pytest.approx(p_value)


def test_many_changes_are_drawn():
    """21 better of 30 is 0.043 by the sign test."""
    first, second = np.repeat([0, 1], [21, 9]), np.repeat([1, 0], [21, 9])
    assert paired_bootstrap(first, second).p_value == pytest.approx(0.0428, abs=0.01)


def test_noise_is_rarely_a_difference():
    draw = np.random.default_rng(2)
    values = [paired_bootstrap(draw.random(60), draw.random(60), resamples=400).p_value for _ in range(200)]
    assert 0.01 < np.mean(np.array(values) < 0.05) < 0.12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "1 or more samples"),
        (lambda: bootstrap_interval([np.nan]), "finite"),
        (lambda: bootstrap_interval([1], confidence=95), "between 0 and 1"),
        (lambda: bootstrap_interval([1], resamples=0), "1 or more, not 0"),
        (lambda: paired_bootstrap([1, 2], [1]), "2 scores and 1 scores"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
