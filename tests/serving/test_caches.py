"""The caches behind the doors: bounded in bytes, and no more shared than what is equal."""

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from lyrics.processing_lyrics.byte_cache import ByteCache
from lyrics.serving.prefix_cache import PrefixCache

from ..threads import run_at_once

IMAGE = 9


def test_the_longest_unused_value_is_dropped():
    cache = ByteCache(10)
    cache.put("a", 1, 4)
    cache.put("b", 2, 4)
    assert cache.get("a") == 1
    cache.put("c", 3, 4)
    assert cache.get("b") is None
    assert (cache.get("a"), cache.get("c")) == (1, 3)
    cache.put("a", 5, 6)
    assert cache.get("a") == 5
    cache.put("huge", 6, 11)
    assert cache.get("huge") is None
    stats = cache.stats()
    assert (stats.entries, stats.bytes, stats.max_bytes) == (2, 10, 10)
    assert (stats.hits, stats.misses) == (4, 2)
    with pytest.raises(ValueError, match="cannot have -1 bytes"):
        ByteCache(-1)


def test_threads_share_a_cache():
    cache = ByteCache(100)

    def work(thread):
        for step in range(500):
            cache.put((thread * step) % 37, step, step % 23)
            cache.get(step % 37)

    run_at_once(work, 6)
    assert cache.stats().bytes == sum(value % 23 for _, value in cache.items()) <= 100


def filled(length):
    """A cache of two layers in which each token's key is its position."""
    cache = DynamicCache()
    for layer in range(2):
        keys = torch.arange(length, dtype=torch.float32).view(1, 1, length, 1) + 100 * layer
        cache.update(keys, -keys, layer)
    return cache


def found_length(prefixes, token_ids, images=()):
    """Number of tokens that are found, with the right keys."""
    cache = prefixes.find(np.array(token_ids), images)
    if cache is None:
        return 0
    length = cache.get_seq_length()
    assert cache.layers[1].keys.flatten().tolist() == [100.0 + index for index in range(length)]
    cache.update(torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1), 0)  # the caller may go on with it
    return length


@pytest.mark.parametrize(
    ("token_ids", "images", "length"),
    [
        ([1, IMAGE, IMAGE, 2, 3, 4, 5], ["x"], 5),
        ([1, IMAGE, IMAGE, 2, 3], ["x"], 4),  # one token is left to be read
        ([1, IMAGE, IMAGE, 2, 7], ["x"], 4),
        ([1, IMAGE, IMAGE, 2, 3, 4], ["y"], 1),  # another image
        ([1, IMAGE, IMAGE, 2, 3, IMAGE, IMAGE], ["x", "z"], 5),
        ([1, IMAGE, IMAGE], ["x"], 1),  # no image is cut in two
        ([2, IMAGE, IMAGE, 2, 3], ["x"], 0),
    ],
)
def test_what_two_prompts_share(token_ids, images, length):
    prefixes = PrefixCache(10**6, IMAGE, 2)
    prefixes.store(np.array([1, IMAGE, IMAGE, 2, 3, 8]), ["x"], filled(5))  # the last token was not read
    for _ in range(2):
        assert found_length(prefixes, token_ids, images) == length


def test_a_longer_conversation_replaces_its_beginning():
    prefixes = PrefixCache(10**6, IMAGE, 2)
    prefixes.store(np.array([1, 2, 3]), [], filled(3))
    prefixes.store(np.array([1, 2, 3, 4, 5]), [], filled(5))
    prefixes.store(np.array([1, 7]), [], filled(2))
    assert prefixes.stats().entries == 2
    assert found_length(prefixes, [1, 2, 3, 4, 6]) == 4
    assert found_length(prefixes, [1, 7, 7]) == 2


def test_caches_that_cannot_be_cut_are_not_kept():
    prefixes = PrefixCache(10**6, IMAGE, 2)
    prefixes.store(np.array([1, 2]), [], object())
    prefixes.store(np.array([1, 2]), [], filled(3))  # longer than what was read
    prefixes.store(np.array([1, 2]), [], DynamicCache())
    assert prefixes.stats().entries == 0
