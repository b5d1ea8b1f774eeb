"""Referring expression comprehension: does the predicted box overlap with the box that is meant?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from .summary import percent
from .variants import check_variant

Box = tuple[float, float, float, float]
BoxVariant = Literal["official", "lmms-eval"]
_VARIANTS = frozenset(get_args(BoxVariant))
BoxCoordinates = Literal["normalized", "pixels", "auto"]

_NUMBER = r"[-+]?(?:\d{1,12}(?:\.\d{0,20})?|\.\d{1,20})"
_SPACE = r"\s{0,8}"
_BOX = re.compile(
    rf"[\[(]{_SPACE}({_NUMBER}){_SPACE},{_SPACE}({_NUMBER}){_SPACE},{_SPACE}({_NUMBER}){_SPACE},{_SPACE}({_NUMBER}){_SPACE}[\])]"
)
_LMMS_NUMBER = r"(-?\d+(?:\.\d+)?)"
_LMMS_BOX = re.compile(rf"\[\s*{_LMMS_NUMBER},\s*{_LMMS_NUMBER},\s*{_LMMS_NUMBER},\s*{_LMMS_NUMBER}\s*\]")


def parse_box(
    answer: str,
    *,
    coordinates: BoxCoordinates = "normalized",
    size: tuple[int, int] | None = None,
    variant: BoxVariant = "official",
) -> Box | None:
    """Return the first box of an answer, or `None` where it has none.

    A box is four numbers between brackets, separated by commas: `star: [0.100, 0.200, 0.300, 0.400]` as Lyrics writes
    it, or `[a, b, c, d]` or `(a, b, c, d)` of other models.

    Args:
        answer: str, answer of the model.
        coordinates: meaning of the numbers: "normalized" is kept, "pixels" is divided by `size`, and "auto" takes
            numbers up to 1.5 for normalized, as VLMEvalKit does, and others for pixels.
        size: tuple of width and height of the image in pixels; needed where numbers may be pixels.
        variant: name of the code that is followed.
            "official": opposite corners may come in any order; the box is returned with x1 <= x2 and y1 <= y2.
            "lmms-eval": its task `refcoco_bbox_rec`: only square brackets and numbers such as 1 or 0.5, and corners in
            the order of the answer. It uses [0, 0, 0, 0] in place of `None`.

    Returns:
        xyxy, normalized to the image; not clipped.

    Raises:
        ValueError: `size` is missing or not positive, or there is no such variant.
    """
    check_variant(variant, _VARIANTS)
    match = (_LMMS_BOX if variant == "lmms-eval" else _BOX).search(answer)
    if match is None:
        return None
    x1, y1, x2, y2 = map(float, match.groups())
    if coordinates == "pixels" or (coordinates == "auto" and max(map(abs, (x1, y1, x2, y2))) > 1.5):
        if size is None or min(size) <= 0:
            raise ValueError(f"Boxes in pixels need the width and height of the image, not {size}.")
        width, height = size
        x1, y1, x2, y2 = x1 / width, y1 / height, x2 / width, y2 / height
    if variant == "lmms-eval":
        return x1, y1, x2, y2
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def box_iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the intersection over union of two boxes, in [0, 1]; 0 where the union has no area.

    Args:
        first: sequence of 4 floats, xyxy with x1 <= x2 and y1 <= y2, without the "+1" of pixel-inclusive code.
        second: the same, in the same units. Normalized boxes and boxes in pixels have the same value if both are
            divided by the same width and height.
    """
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    intersection = max(0.0, width) * max(0.0, height)
    union = _area(first) + _area(second) - intersection
    return min(1.0, intersection / union) if union > 0 and intersection > 0 else 0.0


def _area(box: Sequence[float]) -> float:
    """Return the area of a box, with the sign that reversed corners give it."""
    return (box[2] - box[0]) * (box[3] - box[1])


def score_box(box: Sequence[float] | None, reference: Sequence[float], *, threshold: float = 0.5) -> float:
    """Return 1 where the box overlaps with the reference with at least `threshold` IoU, else 0; 0 for `None`.

    Args:
        box: sequence of 4 floats, xyxy, from `parse_box`.
        reference: sequence of 4 floats, xyxy in the same units.
        threshold: float, lowest IoU of a right box.
    """
    return float(box is not None and box_iou(box, reference) >= threshold)


def summarize_referring(ious: Sequence[float | None]) -> dict[str, float]:
    """Return accuracy at IoU thresholds and the mean IoU in percent.

    Args:
        ious: sequence of floats in [0, 1], one per sentence; `None` for an answer without a box, which counts as 0.

    Returns:
        Percent under "accuracy@0.5" (the field's number), "accuracy@0.1", "accuracy@0.3", "accuracy@0.7",
        "accuracy@0.9" and "mean_iou".
    """
    values = [iou or 0.0 for iou in ious]
    accuracies = {
        f"accuracy@{threshold}": percent([float(value >= threshold) for value in values])
        for threshold in (0.5, 0.1, 0.3, 0.7, 0.9)
    }
    return accuracies | {"mean_iou": percent(values)}
