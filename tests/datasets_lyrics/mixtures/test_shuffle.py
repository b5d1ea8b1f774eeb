"""Permutations as functions, and shares as whole numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyrics.datasets_lyrics.mixtures.shuffle import Shuffle, split_evenly


@given(st.integers(1, 200), st.integers())
def test_every_number_comes_once(count, seed):
    shuffle = Shuffle(count, seed, "test")
    assert sorted(map(shuffle, range(count))) == list(range(count))


def test_keys_give_different_orders_and_any_position_is_at_once():
    orders = {tuple(map(Shuffle(50, seed), range(50))) for seed in range(20)}
    assert len(orders) == 20
    assert 0 <= Shuffle(2_600_000_000, 1)(2_599_999_999) < 2_600_000_000
    with pytest.raises(IndexError, match="Place 5 of 5"):
        Shuffle(5)(5)


@given(st.integers(0, 10_000), st.lists(st.floats(0.001, 1000), min_size=1, max_size=9))
def test_shares_add_up(total, weights):
    counts = split_evenly(total, weights)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * weight / sum(weights)) < 1
