"""Boxes in the answers of a model, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from .spatial_text import as_text, parse_spatial_text


def parse_answers(
    text: str | Sequence[str], image_sizes: Sequence[tuple[int, int]] | None = None
) -> list[dict[str, Any]]:
    """Parse the boxes of a model's answers.

    Args:
        text: decoded answer or list of answers.
        image_sizes: sequence of (height, width) in pixels of each answer's image; without it boxes stay in [0,
            1].

    Returns:
        For each answer a dictionary of `text`, `plain_text` (without boxes), `labels` and `boxes`, a float32 array
        of shape (R, 4), xyxy.

    Raises:
        ValueError: `text` is no text, or `image_sizes` are not sizes, one for each.
    """
    texts = as_texts("text", text)
    sizes = None if image_sizes is None else _as_sizes(image_sizes)
    if sizes is not None and len(sizes) != len(texts):
        raise ValueError(f"Got {len(sizes)} image_sizes for {len(texts)} texts.")
    results = []
    for index, answer in enumerate(texts):
        grounded = parse_spatial_text(answer)
        corners = chain.from_iterable(found.box for found in grounded.objects)
        boxes = np.fromiter(corners, np.float32, 4 * len(grounded.objects)).reshape(-1, 4)
        if sizes is not None:
            height, width = sizes[index]
            boxes = boxes * np.array([width, height, width, height], np.float32)
        labels = [found.label for found in grounded.objects]
        results.append({"text": answer, "plain_text": grounded.plain_text, "labels": labels, "boxes": boxes})
    return results


def as_texts(name: str, texts: Any) -> list[str]:
    """Return one text or a list of texts as a list.

    Raises:
        ValueError: it is anything else; the message names the argument and the types.
    """
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
        kinds = {type(one).__name__ for one in texts} if isinstance(texts, list | tuple) else {type(texts).__name__}
        raise ValueError(f"{name} must be a string or a list of strings, got {', '.join(sorted(kinds))}.")
    return [as_text(one) for one in texts]


def _as_sizes(image_sizes: Any) -> list[tuple[float, float]]:
    """Return sizes as a list of (height, width)."""
    try:
        return [(float(height), float(width)) for height, width in image_sizes]
    except (TypeError, ValueError) as error:
        raise ValueError(f"image_sizes must be a list of (height, width), got {image_sizes!r:.80}.") from error
