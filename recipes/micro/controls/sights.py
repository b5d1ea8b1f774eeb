"""Sights: what a model sees of a scene, which is where the arms of the comparison differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from ....modeling_lyrics.refiner_images import segmenter_view
from ....modeling_lyrics.refiner_regions import pool_masks
from ....modeling_lyrics.refiner_tiles import cut_tiles
from ....processing_lyrics import VisualObjects
from ..refiner.detector import visible_tags
from ..world.objects import Scene

_GRAY = (128, 128, 128)
_BOX_SIZE = 4  # the last numbers of a region feature are the box

Area = tuple[int, int, int, int]  # left, upper, right and lower edge, in pixels


@dataclass(frozen=True)
class Seen:
    """What a model sees of a scene.

    Attributes:
        image: picture for the vision encoder, or `None` where the model has plain text instead.
        objects: objects for the grounding queries, or `None` for a model without them.
        text: plain text before the first message.
    """

    image: Image.Image | None
    objects: VisualObjects | None = None
    text: str = ""


@dataclass(frozen=True)
class Lookout:
    """Where sights come from.

    Attributes:
        draw: function from the number of a scene to the scene.
        find: function from the number of a scene to the objects that the refiner finds in it.
        refiner: refiner, which describes true objects.
        write: function from objects to plain text.
    """

    draw: Callable[[int], Scene]
    find: Callable[[int], VisualObjects]
    refiner: Any
    write: Callable[[VisualObjects], str]


Sight = Callable[[Lookout, int], Seen]


def _refined(lookout: Lookout, number: int) -> Seen:
    return Seen(lookout.draw(number).image, lookout.find(number))


def _picture(lookout: Lookout, number: int) -> Seen:
    return Seen(lookout.draw(number).image)


def _blank_view(lookout: Lookout, number: int) -> Seen:
    return Seen(Image.new("RGB", lookout.draw(number).size, _GRAY), lookout.find(number))


def _other_view(lookout: Lookout, number: int) -> Seen:
    return Seen(lookout.draw(number + 1).image, lookout.find(number))


def _shuffled(lookout: Lookout, number: int) -> Seen:
    return Seen(lookout.draw(number).image, shuffle_features(lookout.find(number)))


def _borrowed(lookout: Lookout, number: int) -> Seen:
    return Seen(lookout.draw(number).image, borrow_features(lookout.find(number), lookout.find(number + 1)))


def _oracle(lookout: Lookout, number: int) -> Seen:
    scene = lookout.draw(number)
    return Seen(scene.image, describe_true_objects(scene, lookout.refiner))


def _text(lookout: Lookout, number: int) -> Seen:
    return Seen(None, text=lookout.write(lookout.find(number)))


SIGHTS: Mapping[str, Sight] = {
    "refined": _refined,
    "picture": _picture,
    "blank_view": _blank_view,
    "other_view": _other_view,
    "shuffled": _shuffled,
    "borrowed": _borrowed,
    "oracle": _oracle,
    "text": _text,
}
WITHOUT_REFINER = ("picture",)  # sights that need no objects
OF_THE_NEXT = ("borrowed",)  # sights that need the objects of the next scene


def shuffle_features(objects: VisualObjects) -> VisualObjects:
    """Give each object the region feature of the one before it. Labels and boxes stay."""
    features = np.array(objects.region_features)
    features[:, :-_BOX_SIZE] = np.roll(features[:, :-_BOX_SIZE], 1, axis=0)
    return replace(objects, region_features=features)


def borrow_features(objects: VisualObjects, other: VisualObjects) -> VisualObjects:
    """Give objects the region features of another scene, repeated where it has fewer. Labels and boxes stay."""
    if not len(other):
        return objects
    features = np.array(objects.region_features)
    features[:, :-_BOX_SIZE] = other.region_features[np.arange(len(objects)) % len(other), :-_BOX_SIZE]
    return replace(objects, region_features=features)


@torch.no_grad()
def describe_true_objects(scene: Scene, refiner: Any) -> VisualObjects:
    """Return shapes and characters of a scene as the refiner describes what it finds, with their true boxes and masks.

    A region feature is the mean of the segmenter's embedding under the true mask, or under the true box of a character,
    in the part of a long picture that shows most of the object.

    Args:
        scene: scene.
        refiner: `LyricsVisualRefiner` whose region features are of the kind `"mask"`.
    """
    tags = visible_tags(scene)
    masks = [thing.mask for thing in scene.objects] + [None] * (len(tags) - len(scene.objects))
    boxes = np.array([box for _, box in tags], np.float32).reshape(-1, 4)
    areas = _areas(scene.size, refiner.config)
    part_of = [max(range(len(areas)), key=lambda part: _shown(box, areas[part], scene.size)) for box in boxes]
    features = np.zeros((len(tags), refiner.config.region_feature_size), np.float32)
    features[:, -_BOX_SIZE:] = boxes
    for part in sorted(set(part_of)):
        chosen = [index for index, own in enumerate(part_of) if own == part]
        own_masks = [masks[index] for index in chosen]
        features[chosen, :-_BOX_SIZE] = _pool(scene, areas[part], boxes[chosen], own_masks, refiner)
    return VisualObjects([tag for tag, _ in tags], boxes, np.ones(len(tags), np.float32), features)


def _areas(size: tuple[int, int], config: Any) -> list[Area]:
    """Return the parts in which the refiner looks at a picture."""
    tiles = cut_tiles(*size, config.tile_aspect_ratio or math.inf, config.tile_overlap)
    return [(0, 0, *size)] if tiles is None else [tile.area for tile in tiles]


def _shown(box: np.ndarray, area: Area, size: tuple[int, int]) -> float:
    """Return how many pixels of a box a part of the picture shows."""
    x1, y1, x2, y2 = _within(box, area, size)
    return float((x2 - x1) * (y2 - y1))


def _within(box: np.ndarray, area: Area, size: tuple[int, int]) -> np.ndarray:
    """Return a box, xyxy in [0, 1] of the picture, in pixels of a part of it, cut at its edges."""
    left, top, right, bottom = area
    pixels = box * np.array(size * 2) - (left, top, left, top)
    return pixels.clip(0, (right - left, bottom - top) * 2)


def _pool(scene: Scene, area: Area, boxes: np.ndarray, masks: list[np.ndarray | None], refiner: Any) -> np.ndarray:
    """Return the mean embedding of a part of the picture under each mask, or under the box of an object without one."""
    config, (left, top, right, bottom) = refiner.config, area
    side = config.segmenter_side
    pixels, (height, width) = segmenter_view(scene.image.crop(area), side, config.image_mean, config.image_std)
    embedding = refiner.segmenter.get_image_embeddings(pixels[None].to(refiner.device))[0]
    logits = torch.full((len(boxes), side, side), -1.0)
    for row, mask in enumerate(masks):
        if mask is not None:
            part = Image.fromarray(mask[top:bottom, left:right]).resize((width, height), Image.Resampling.NEAREST)
            logits[row, :height, :width] = torch.from_numpy(np.array(part)).float() * 2 - 1
    inside = np.array([_within(box, area, scene.size) for box in boxes]) / ((right - left, bottom - top) * 2)
    pooled = pool_masks(
        embedding,
        logits.to(refiner.device),
        torch.tensor(inside, dtype=torch.float32, device=refiner.device),
        [height / side, width / side],
    )
    return pooled.cpu().numpy()
