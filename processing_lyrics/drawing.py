"""Drawing of visual objects and of attention over their image."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .label_fonts import load_label_font
from .spatial_text import GroundedObject
from .visual_objects import VisualObjects

# Okabe and Ito's colors, which the color-blind can tell apart; one per label, in order of appearance.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
SEEN = (170, 170, 170)  # color of the objects beside the boxes of an answer
MASK_OPACITY = 0.4
SHADE_OPACITY = 0.65  # of the shade over regions without attention
MIN_SHARE = 0.1  # share of the largest weight below which an object gets no frame
MIN_SIDE = 320  # smaller images are enlarged, so that labels can be read


def draw_objects(
    picture: Image.Image,
    objects: VisualObjects,
    answer: Sequence[GroundedObject] = (),
    *,
    masks: bool = True,
    labels: bool = True,
    scores: bool = True,
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Return a copy of the image with boxes, masks, labels and scores.

    Args:
        picture: RGB image; below 320 pixels on its long side it is enlarged.
        objects: visual objects with boxes in [0, 1]; masks of any size are scaled to the image.
        answer: sequence of the boxes of an answer. They are drawn instead of the objects, of which thin gray boxes
            remain.
        masks, labels, scores: whether these are drawn beside the boxes.
        font: font file for the labels; by default one that has their characters.

    Raises:
        ValueError: `font` cannot be read.
    """
    canvas = _enlarge(picture)
    if answer:
        return _draw_answer(canvas, objects, answer, labels, font)
    size = canvas.size
    colors = color_labels(objects.labels)
    if masks and objects.masks is not None:
        for label, mask in zip(objects.labels, objects.masks, strict=True):
            _shade(canvas, mask, colors[label])
    draw = ImageDraw.Draw(canvas)
    line = max(2, round(min(size) / 200))
    written = _load_font(canvas, objects.labels if labels else [], font)
    order = list(range(len(objects)))[::-1]  # the best object last, on top
    boxes = {index: _to_pixels(objects.boxes[index], size, line) for index in order}
    for index in order:
        draw.rectangle(boxes[index], outline=(0, 0, 0), width=line + 2)
        draw.rectangle(boxes[index], outline=colors[objects.labels[index]], width=line)
    for index in order if labels or scores else ():
        words = [objects.labels[index]] * labels + [f"{objects.scores[index]:.2f}"] * scores
        _write(draw, boxes[index], " ".join(words), colors[objects.labels[index]], written, size)
    return canvas


def color_labels(labels: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Return the color of each label, by order of appearance."""
    return {label: PALETTE[index % len(PALETTE)] for index, label in enumerate(dict.fromkeys(labels))}


def _load_font(canvas: Image.Image, labels: Sequence[str], path: str | os.PathLike[str] | None) -> Any:
    """Return the font for labels on an image of this size."""
    return load_label_font(list(labels), max(12, round(min(canvas.size) / 35)), path)


def _draw_answer(
    canvas: Image.Image,
    objects: VisualObjects,
    answer: Sequence[GroundedObject],
    labels: bool,
    font: str | os.PathLike[str] | None,
) -> Image.Image:
    """Draw the boxes of an answer in color, above thin gray boxes of the objects; the first box lies on top."""
    draw, size = ImageDraw.Draw(canvas), canvas.size
    line = max(2, round(min(size) / 150))
    written = _load_font(canvas, [one.label for one in answer] if labels else [], font)
    for box in objects.boxes[::-1]:
        draw.rectangle(_to_pixels(box, size, line), outline=SEEN, width=1)
    found = [
        (_to_pixels(one.box, size, line), one.label, PALETTE[index % len(PALETTE)]) for index, one in enumerate(answer)
    ]
    for box, _, color in reversed(found):
        draw.rectangle(box, outline=(0, 0, 0), width=line + 2)
        draw.rectangle(box, outline=color, width=line)
    for box, label, color in reversed(found) if labels else ():
        _write(draw, box, label or "answer", color, written, size)
    return canvas


def draw_attention(
    picture: Image.Image,
    objects: VisualObjects,
    weights: Sequence[float],
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Return a copy of the image in which objects stand out by their weight.

    The image is darkened outside of objects with a high weight, relative to the largest. An object's label shows the
    weight itself.

    Args:
        picture: RGB image; below 320 pixels on its long side it is enlarged.
        objects: visual objects with boxes in [0, 1].
        weights: sequence of one non-negative weight per object.
        font: font file for the labels; by default one that has their characters.

    Raises:
        ValueError: the numbers of weights and of objects differ, or `font` cannot be read.
    """
    if len(weights) != len(objects):
        raise ValueError(f"Got {len(weights)} weights for {len(objects)} objects.")
    largest = max([*map(float, weights), 0.0]) or 1.0
    shares = [float(weight) / largest for weight in weights]
    canvas = _enlarge(picture)
    line = max(2, round(min(canvas.size) / 150))
    written = _load_font(canvas, objects.labels, font)
    boxes = [_to_pixels(box, canvas.size, line) for box in objects.boxes]
    light = np.zeros((canvas.height, canvas.width), np.float32)
    for (x1, y1, x2, y2), share in zip(boxes, shares, strict=True):
        light[y1 : y2 + 1, x1 : x2 + 1] = np.maximum(light[y1 : y2 + 1, x1 : x2 + 1], share)
    shade = Image.fromarray(((1 - light) * round(255 * SHADE_OPACITY)).astype(np.uint8))
    canvas.paste(Image.new("RGB", canvas.size), mask=shade)
    draw = ImageDraw.Draw(canvas)
    order = sorted(range(len(objects)), key=shares.__getitem__)  # the most important last, on top
    shown = [index for index in order if shares[index] >= MIN_SHARE]
    for index in shown:
        draw.rectangle(boxes[index], outline=(0, 0, 0), width=line + 2)
        draw.rectangle(boxes[index], outline=PALETTE[0], width=max(1, round(line * shares[index])))
    for index in shown:
        _write(
            draw, boxes[index], f"{objects.labels[index]} {float(weights[index]):.2f}", PALETTE[0], written, canvas.size
        )
    return canvas


def _enlarge(picture: Image.Image) -> Image.Image:
    """Return a copy that is large enough for labels to be read."""
    factor = max(1.0, MIN_SIDE / max(picture.size))
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(size, Image.Resampling.LANCZOS) if factor > 1 else picture.copy()


def _to_pixels(box: Sequence[float] | np.ndarray, size: tuple[int, int], line: int) -> tuple[int, int, int, int]:
    """Return the corners of a box in pixels, inside the image and far enough apart to be drawn."""
    x1, y1, x2, y2 = (round(float(value) * side) for value, side in zip(box, size * 2, strict=True))
    x1, y1 = max(0, min(x1, size[0] - 1 - line)), max(0, min(y1, size[1] - 1 - line))
    return x1, y1, min(max(x2, x1 + line), size[0] - 1), min(max(y2, y1 + line), size[1] - 1)


def _shade(canvas: Image.Image, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    """Tint the image under a mask."""
    stencil = Image.fromarray((mask * round(255 * MASK_OPACITY)).astype(np.uint8)).resize(canvas.size)
    canvas.paste(Image.new("RGB", canvas.size, color), mask=stencil)


def _write(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    text: str,
    color: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Write a label on a plate of its color, above the box, or inside it where there is no room."""
    text = _CONTROLS.sub(" ", text)  # Pillow fails on a carriage return
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = int(right - left) + 6, int(bottom - top) + 6
    x = max(0, min(box[0], size[0] - width))
    y = box[1] - height if box[1] >= height else box[1]
    draw.rectangle((x, y, x + width, y + height), fill=color)
    draw.text((x + 3 - left, y + 3 - top), text, fill=ink_on(color), font=font)


def ink_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return black or white, whichever can be read better on a color."""
    return (0, 0, 0) if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 110 else (255, 255, 255)
