"""Tiles: a long image is refined in overlapping square parts, and their objects become those of the image.

The parts of a refiner look at square images, or were trained on them: the tagger stretches any image to a square,
and the segmenter pads it, so that a long image has objects that are squeezed, or small. A tile is as wide as the
image's short side. An object at an inner edge of a tile may be cut there; another tile shows the whole of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers.utils import logging

from .refiner_output import RefinedImage
from .refiner_regions import box_iou

logger = logging.get_logger(__name__)

_MOST_TILES = 32  # of an image: 16 times as long as it is wide, where tiles overlap by one half
_EDGE = 0.02  # distance from an inner edge, in shares of the tile's side, up to which a box counts as cut
_PART = 0.5  # share of a cut object within another, from which on it is a part of that
_BOX_SIZE = 4  # the last numbers of a region feature are the box


@dataclass(frozen=True)
class Tile:
    """Square part of an image, in pixels.

    Attributes:
        left, top: its corner.
        side: its width and height.
    """

    left: int
    top: int
    side: int

    @property
    def area(self) -> tuple[int, int, int, int]:
        """Left, upper, right and lower edge."""
        return self.left, self.top, self.left + self.side, self.top + self.side


def cut_tiles(width: int, height: int, aspect_ratio: float, overlap: float) -> list[Tile] | None:
    """Return the tiles of an image, evenly spaced, or `None` for an image that is refined as a whole.

    A strip that needs more than 32 tiles is refined as a whole, too, with a warning: otherwise its time would grow with
    its length, without a limit.

    Args:
        width, height: size of the image in pixels.
        aspect_ratio: long side divided by short side, up to which an image is refined as a whole.
        overlap: smallest overlap of two neighbors, in shares of a tile's side.
    """
    side, long = min(width, height), max(width, height)
    if long <= aspect_ratio * side:
        return None
    count = 1 + math.ceil((long / side - 1) / (1 - overlap))
    if count > _MOST_TILES:
        logger.warning_once(
            f"An image of {width} x {height} pixels needs {count} square tiles, and {_MOST_TILES} are the most: it is "
            "refined as a whole, where its objects are squeezed. Cut such strips before."
        )
        return None
    places = [round(index * (long - side) / (count - 1)) for index in range(count)]
    return [Tile(place, 0, side) if width > height else Tile(0, place, side) for place in places]


def join_tiles(
    parts: Sequence[RefinedImage],
    tiles: Sequence[Tile],
    width: int,
    height: int,
    iou_threshold: float,
    max_regions: int,
) -> RefinedImage:
    """Join the objects that the tiles of an image show.

    An object is dropped where it overlaps a better one by more than `iou_threshold`. Objects that an inner edge cuts
    come after all others. They are dropped, too, where they lie mostly within a better one that the same edge cuts: a
    part of it, such as an arm of a cross, may look like something else.

    Args:
        parts: `RefinedImage` of each tile, with `"mask"` region features.
        tiles: the tiles.
        width, height: size of the image in pixels.
        iou_threshold: largest overlap of two objects.
        max_regions: largest number of objects.

    Returns:
        `RefinedImage` of the image, whole objects first, best score first.
    """
    scale = torch.tensor([width, height, width, height])
    boxes = [
        (part.boxes * tile.side + torch.tensor([tile.left, tile.top] * 2)) / scale
        for part, tile in zip(parts, tiles, strict=True)
    ]
    tile_of = torch.cat([torch.full((len(part.boxes),), index) for index, part in enumerate(parts)])
    cut = torch.cat([_is_cut(part.boxes, tile, width, height) for part, tile in zip(parts, tiles, strict=True)])
    joined, scores = torch.cat(boxes), torch.cat([part.scores for part in parts])
    areas = torch.tensor([tile.area for tile in tiles]) / scale
    by_score = scores.argsort(descending=True, stable=True)
    kept: list[int] = []
    for candidate in by_score[cut[by_score].argsort(stable=True)].tolist():
        if len(kept) == max_regions:
            break
        better = joined[kept]
        if (box_iou(joined[candidate], better) > iou_threshold).any():
            continue
        if not cut[candidate] or not _is_part(joined[candidate], better, areas[tile_of[candidate]]):
            kept.append(candidate)
    labels = [label for part in parts for label in part.labels]
    features = torch.cat([part.region_features for part in parts])[kept]
    features[:, -_BOX_SIZE:] = joined[kept]
    first_of = torch.tensor([0, *(len(part.boxes) for part in parts)]).cumsum(0)
    placed: list[torch.Tensor] = []
    for index in kept:  # those alone: the masks of all tiles at the size of the image would take gigabytes
        number = int(tile_of[index])
        masks, row = parts[number].masks, index - int(first_of[number])
        if masks is not None:
            placed.append(_place(masks[row : row + 1], tiles[number], width, height))
    none = None if parts[0].masks is None else parts[0].masks.new_zeros(0, height, width)
    return replace(
        parts[0],
        labels=[labels[index] for index in kept],
        boxes=joined[kept],
        scores=scores[kept],
        region_features=features,
        masks=torch.cat(placed) if placed else none,
        tags=list(dict.fromkeys(tag for part in parts for tag in part.tags)),
    )


def _is_cut(boxes: torch.Tensor, tile: Tile, width: int, height: int) -> torch.Tensor:
    """Return whether boxes (R, 4), in [0, 1] of a tile, reach an edge of it that is not the image's, bool (R,)."""
    low, high = boxes[:, :2] < _EDGE, boxes[:, 2:] > 1 - _EDGE
    inner_low = torch.tensor([tile.left > 0, tile.top > 0])
    inner_high = torch.tensor([tile.left + tile.side < width, tile.top + tile.side < height])
    return ((low & inner_low) | (high & inner_high)).any(dim=1)


def _is_part(candidate: torch.Tensor, boxes: torch.Tensor, area: torch.Tensor) -> bool:
    """Return whether a box (4,) lies mostly within one of the boxes (K, 4) that reach beyond an area (4,)."""
    beyond = ((boxes[:, :2] < area[:2]) | (boxes[:, 2:] > area[2:])).any(dim=1)
    shared = torch.minimum(candidate[2:], boxes[:, 2:]) - torch.maximum(candidate[:2], boxes[:, :2])
    share = shared.clamp(min=0).prod(dim=1) / (candidate[2:] - candidate[:2]).prod()
    return bool((beyond & (share > _PART)).any())


def _place(masks: torch.Tensor, tile: Tile, width: int, height: int) -> torch.Tensor:
    """Return the masks (R, side, side) of a tile at the size of the image, bool of shape (R, height, width)."""
    placed = masks.new_zeros(len(masks), height, width)
    left, top, right, bottom = tile.area
    placed[:, top:bottom, left:right] = masks
    return placed
