"""Recall of retrieval between images and texts, in both directions; an image may have several captions.

The rank of a query is that of its best-placed right candidate among the wrong ones. Ties count against it: a wrong
candidate with the same similarity stands before the right one, so that a model that finds everything equally similar
finds nothing. Other right candidates do not count, as in the evaluation of CLIP and BLIP-2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .bootstrap import Interval, bootstrap_interval

CUTOFFS = (1, 5, 10)
RERANKED = 128  # candidates of a query that are scored as pairs, as in BLIP-2
DIRECTIONS = ("image_to_text", "text_to_image")


@dataclass(frozen=True)
class RetrievalRanks:
    """Ranks of the first right candidate, from 1.

    Attributes:
        image_to_text: int64 array of shape (N,), of each image among all texts.
        text_to_image: int64 array of shape (M,), of each text among all images.
    """

    image_to_text: npt.NDArray[np.int64]
    text_to_image: npt.NDArray[np.int64]


def score_retrieval(
    image_to_text: npt.NDArray[Any], image_of_text: Sequence[int], text_to_image: npt.NDArray[Any] | None = None
) -> RetrievalRanks:
    """Return the ranks of both directions.

    Args:
        image_to_text: float array of shape (N, M), similarity of each image to each text.
        image_of_text: sequence of M ints, the image that each text describes; every image has at least one text.
        text_to_image: float array of shape (M, N), similarity of each text to each image, where it is not the same, as
            after re-ranking.

    Raises:
        ValueError: the shapes do not fit, a similarity is not a number, or an image has no text.
    """
    forward = _checked("image_to_text", image_to_text)
    owners = np.asarray(image_of_text)
    images, texts = forward.shape
    backward = forward.T if text_to_image is None else _checked("text_to_image", text_to_image)
    if owners.shape != (texts,) or backward.shape != (texts, images):
        raise ValueError(
            f"Similarities of {images} images and {texts} texts need the image of {texts} texts and, the other way, an "
            f"array of shape ({texts}, {images}); got {owners.shape} and {backward.shape}."
        )
    if not np.issubdtype(owners.dtype, np.integer) or set(owners.tolist()) != set(range(images)):
        raise ValueError(f"image_of_text must name each of the {images} images, by numbers from 0 to {images - 1}.")
    return RetrievalRanks(
        np.array([first_rank(row, owners == number) for number, row in enumerate(forward)], np.int64),
        np.array([first_rank(row, np.arange(images) == owner) for row, owner in zip(backward, owners, strict=True)]),
    )


def first_rank(similarity: npt.NDArray[Any], is_right: npt.NDArray[np.bool_]) -> int:
    """Return the rank of the best right candidate of a query: 1 + the wrong ones that are at least as similar.

    Args:
        similarity: float array of shape (C,), similarity of each candidate.
        is_right: bool array of shape (C,), at least one True.
    """
    return 1 + int((similarity[~is_right] >= similarity[is_right].max()).sum())


def recall_at(ranks: npt.NDArray[np.int64], cutoff: int) -> npt.NDArray[np.float64]:
    """Return whether each query has a right candidate among the first `cutoff`, float array of zeros and ones."""
    return (ranks <= cutoff).astype(np.float64)


def best_candidates(similarity: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """Return the `count` most similar candidates of a query, best first; equal ones in their order.

    Args:
        similarity: float array of shape (C,), similarity of each candidate.
        count: int, at least 1.
    """
    return np.argsort(-similarity, kind="stable")[:count]


def rerank(
    similarity: npt.NDArray[Any], score: Callable[[int, npt.NDArray[np.int64]], npt.NDArray[Any]], count: int
) -> npt.NDArray[np.float64]:
    """Return similarities in which the best candidates of each query are in the order of another score.

    All others follow in their old order. The new value of a candidate is similarity + score, as in BLIP-2.

    Args:
        similarity: float array of shape (Q, C).
        score: function from the number of a query and the numbers of K candidates to their scores, shape (K,).
        count: int, number of candidates of a query that are scored, K; at most C.
    """
    result = np.array(similarity, np.float64)
    for query, row in enumerate(result):
        best = best_candidates(row, count)
        added = row[best] + score(query, best)
        row[best] = added - added.min() + row.max() + 1.0
    return result


def summarize_retrieval(ranks: RetrievalRanks) -> dict[str, float]:
    """Return recall at 1, 5 and 10 of both directions in percent, such as `"text_to_image R@5"`."""
    return {name: interval.value for name, interval in bootstrap_retrieval(ranks, resamples=1).items()}


def bootstrap_retrieval(
    ranks: RetrievalRanks, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Return what `summarize_retrieval` does, with intervals, by drawing queries; the candidates stay the same.

    Args:
        ranks: ranks of both directions.
        confidence: float in (0, 1), probability that an interval covers.
        resamples: int, number of draws.
        seed: int, seed of the draws.
    """
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    return {
        f"{direction} R@{cutoff}": Interval(
            *(100 * value for value in bootstrap_interval(recall_at(getattr(ranks, direction), cutoff), **options))
        )
        for direction in DIRECTIONS
        for cutoff in CUTOFFS
    }


def _checked(name: str, similarity: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return similarities, a non-empty matrix of numbers."""
    array = np.asarray(similarity)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} must be a matrix of similarities, got an array of shape {array.shape}.")
    if np.isnan(array).any():
        raise ValueError(f"{name} has {int(np.isnan(array).sum())} similarities that are not a number.")
    return array
