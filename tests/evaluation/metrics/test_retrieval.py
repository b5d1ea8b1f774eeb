"""Recall of retrieval: ranks counted by hand, ties, several captions, and re-ranking."""

import numpy as np
import pytest

from lyrics.evaluation.metrics.retrieval import (
    RetrievalRanks,
    bootstrap_retrieval,
    first_rank,
    rerank,
    score_retrieval,
    summarize_retrieval,
)


def test_ranks_of_both_directions_with_several_captions():
    similarity = np.array([[0.1, 0.9, 0.8, 0.3], [0.2, 0.4, 0.95, 0.6]])  # captions 0 and 1 are of image 0
    ranks = score_retrieval(similarity, [0, 0, 1, 1])
    assert ranks.image_to_text.tolist() == [1, 1]
    assert ranks.text_to_image.tolist() == [2, 1, 1, 1]


def test_the_best_caption_of_an_image_counts_and_its_others_do_not_stand_before_it():
    assert first_rank(np.array([0.9, 0.8, 0.7, 0.6]), np.array([False, True, True, False])) == 2
    assert first_rank(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, True, False])) == 1


def test_a_model_that_finds_everything_equally_similar_finds_nothing():
    ranks = score_retrieval(np.zeros((20, 20)), list(range(20)))
    assert summarize_retrieval(ranks) == {
        f"{way} R@{cutoff}": 0.0 for way in ("image_to_text", "text_to_image") for cutoff in (1, 5, 10)
    }


def test_recall_counts_ranks_up_to_the_cutoff():
    ranks = RetrievalRanks(np.array([1, 5, 6, 11]), np.array([1, 1, 10, 11]))
    found = summarize_retrieval(ranks)
    assert [found[f"image_to_text R@{cutoff}"] for cutoff in (1, 5, 10)] == [25.0, 50.0, 75.0]
    assert [found[f"text_to_image R@{cutoff}"] for cutoff in (1, 5, 10)] == [50.0, 50.0, 75.0]
    low, high = bootstrap_retrieval(ranks)["image_to_text R@5"][1:]
    assert 0 <= low < 50 < high <= 100


def test_reranking_orders_the_best_candidates_by_both_scores_and_keeps_the_others_behind():
    similarity = np.array([[0.5, 0.4, 0.3, 0.9]])
    asked = []

    def score(query, candidates):
        asked.append((query, candidates.tolist()))
        return np.array([-2.0, 0.0, 1.0])

    order = np.argsort(-rerank(similarity, score, 3)[0])
    assert asked == [(0, [3, 0, 1])]
    assert order.tolist() == [1, 0, 3, 2]
    assert similarity.tolist() == [[0.5, 0.4, 0.3, 0.9]], "the similarities of the caller stay"


@pytest.mark.parametrize(
    ("similarity", "owners", "message"),
    [
        (np.zeros((2, 3)), [0, 1], "need the image of 3 texts"),
        (np.zeros((2, 2)), [0, 0], "must name each of the 2 images"),
        (np.zeros((2, 2)), [0, 2], "must name each of the 2 images"),
        (np.array([[0.0, np.nan]]), [0, 0], "1 similarities that are not a number"),
        (np.zeros((0, 0)), [], "must be a matrix"),
    ],
)
def test_wrong_input_is_named(similarity, owners, message):
    with pytest.raises(ValueError, match=message):
        score_retrieval(similarity, owners)
