"""Recall of a first stage on images with captions, such as Flickr30k and COCO, in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers.utils import logging

from ..evaluation.metrics.bootstrap import Interval
from ..evaluation.metrics.retrieval import RERANKED, best_candidates, bootstrap_retrieval, rerank, score_retrieval
from ..processing_lyrics import VisualObjects
from .encoder import Array, PairEncoder

logger = logging.get_logger(__name__)

Rows = Iterable[Mapping[str, Any]]  # can be iterated twice


@dataclass(frozen=True)
class RetrievalResult:
    """Recall of a model.

    Attributes:
        images: int, number of images.
        texts: int, number of captions.
        contrast: recall in percent with its interval, by similarity alone; its keys are such as `"text_to_image R@1"`.
        reranked: the same after the best candidates were scored as pairs, or `None`.
        skipped: reasons why further rows could not be read. Recall among fewer images is larger.
    """

    images: int
    texts: int
    contrast: dict[str, Interval]
    reranked: dict[str, Interval] | None = None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Embedded:
    """Embeddings of images (N, D) and of captions (M, D), the image of each caption, captions, and objects.

    `skipped` has the reason of each row that could not be read, by its number.
    """

    images: Array
    texts: Array
    owners: list[int]
    captions: list[str]
    objects: list[VisualObjects]
    skipped: dict[int, str]


def evaluate_retrieval(
    encoder: PairEncoder,
    rows: Rows,
    *,
    reranked: int = RERANKED,
    image_column: str = "image",
    caption_column: str = "caption",
    seed: int = 0,
) -> RetrievalResult:
    """Return recall at 1, 5 and 10 among all images and captions of a data set.

    Args:
        encoder: first stage.
        rows: rows with an image and a caption or a list of captions, which can be iterated twice; `open_rows` returns
            such for `NAME/SPLIT:FOLDER`.
        reranked: int, number of candidates of each query that are scored as pairs; 0 for none.
        image_column, caption_column: names of columns.
        seed: int, seed of the intervals.

    Raises:
        ValueError: there is no row that can be read, or one lacks an image or captions.
    """
    embedded = _embed_rows(encoder, rows, image_column, caption_column)
    similarity = embedded.images @ embedded.texts.T / encoder.temperature  # (N, M)
    ranks = score_retrieval(similarity, embedded.owners)
    counts = len(embedded.images), len(embedded.texts)
    contrast, skipped = bootstrap_retrieval(ranks, seed=seed), tuple(embedded.skipped.values())
    if not reranked or not encoder.can_match:
        return RetrievalResult(*counts, contrast, skipped=skipped)
    images = (row[image_column] for number, row in enumerate(rows) if number not in embedded.skipped)
    scores = _score_candidates(encoder, images, embedded, similarity, reranked)
    forward = rerank(similarity, lambda image, texts: scores[image, texts], reranked)
    backward = rerank(similarity.T, lambda text, images: scores[images, text], reranked)
    ranks = score_retrieval(forward, embedded.owners, backward)
    return RetrievalResult(*counts, contrast, bootstrap_retrieval(ranks, seed=seed), skipped)


def _score_candidates(
    encoder: PairEncoder, images: Iterable[Any], embedded: _Embedded, similarity: Array, count: int
) -> Array:
    """Return the log odds of the pairs that re-ranking needs, (N, M), NaN for all others; each image is read once."""
    wanted = np.zeros(similarity.shape, bool)
    for image, row in enumerate(similarity):
        wanted[image, best_candidates(row, count)] = True
    for text, row in enumerate(similarity.T):
        wanted[best_candidates(row, count), text] = True
    scores = np.full(similarity.shape, np.nan, np.float32)
    for number, image in enumerate(logging.tqdm(images, desc="Scoring pairs", unit="image", total=len(wanted))):
        picture = encoder.processor.load_pictures(image)[0]
        texts = np.flatnonzero(wanted[number])
        captions = [embedded.captions[text] for text in texts]
        scores[number, texts] = encoder.match_texts(picture, embedded.objects[number], captions)
    return scores


def _embed_rows(encoder: PairEncoder, rows: Rows, image_column: str, caption_column: str) -> _Embedded:
    """Embed the images and captions of rows; an image that cannot be read is named and left out."""
    vectors: list[Array] = []
    objects: list[VisualObjects] = []
    captions: list[str] = []
    owners: list[int] = []
    group: list[Any] = []
    skipped: dict[int, str] = {}
    count = 0  # of images

    def flush() -> None:
        found = encoder.find_objects(group)
        vectors.append(encoder.embed_images(group, found))
        objects.extend(found)
        group.clear()

    for number, row in enumerate(logging.tqdm(rows, desc="Embedding", unit="image")):
        written = _captions_of(row, number, caption_column)
        if row.get(image_column) is None:
            raise ValueError(f"Row {number} has no image in {image_column!r}.")
        try:
            group += encoder.processor.load_pictures(row[image_column])[:1]
        except (ValueError, OSError) as error:
            skipped[number] = f"row {number}: {error}"
            logger.warning(f"The image of row {number} is left out: {error}")
            continue
        captions += written
        owners += [count] * len(written)
        count += 1
        if len(group) == encoder.batch_size:
            flush()
    if not owners:
        raise ValueError(f"There is no row to evaluate{', ' if skipped else ''}{next(iter(skipped.values()), '')}.")
    if group:
        flush()
    return _Embedded(np.concatenate(vectors), encoder.embed_texts(captions), owners, captions, objects, skipped)


def _captions_of(row: Mapping[str, Any], number: int, column: str) -> Sequence[str]:
    """Return the captions of a row, one or more."""
    value = row.get(column)
    captions = [value] if isinstance(value, str) else list(value or ())
    if not captions or not all(isinstance(one, str) and one.strip() for one in captions):
        raise ValueError(f"Row {number} has no captions in {column!r}, got {value!r:.80}.")
    return captions
