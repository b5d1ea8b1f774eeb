"""Tiles: long images are refined in square parts, and an object is one object, whether a part cuts it or not."""

import copy
import itertools

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from torch.testing import assert_close

from lyrics import LyricsProcessor, LyricsRefinerConfig, LyricsVisualRefiner
from lyrics.assets import MICRO_CHECKPOINT, SCENE_PICTURE
from lyrics.modeling_lyrics.refiner_output import RefinedImage
from lyrics.modeling_lyrics.refiner_tiles import cut_tiles, join_tiles

WIDE = (200, 100)  # width and height


@pytest.fixture(scope="module")
def tiled() -> LyricsVisualRefiner:
    """The shipped refiner, which looks at long images in tiles."""
    refiner = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).refiner
    refiner.config = copy.deepcopy(refiner.config)
    refiner.config.tile_aspect_ratio = 1.2
    return refiner


def refined(labels, boxes, scores, masks=None) -> RefinedImage:
    """Return the objects of a tile, with the number of each in its region feature."""
    boxes = torch.tensor(boxes).view(-1, 4)
    features = torch.cat([torch.arange(len(labels))[:, None].float(), boxes], dim=1)
    return RefinedImage(labels, boxes, torch.tensor(scores), features, masks, ["star", "ring"])


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (121, 100), (100, 257)])
def test_every_object_up_to_the_overlap_lies_within_a_tile(size):
    tiles = cut_tiles(*size, 1.2, 0.5)
    axis = int(size[1] > size[0])
    starts = [tile.area[axis] for tile in tiles]
    assert starts[0] == 0
    assert starts[-1] + 100 == max(size)
    assert all(second - first <= 50 for first, second in itertools.pairwise(starts))
    assert {tile.side for tile in tiles} == {100}


def test_a_picture_that_is_not_long_is_a_whole():
    assert cut_tiles(120, 100, 1.2, 0.5) is None
    assert cut_tiles(100, 120, 1.2, 0.5) is None


def test_a_strip_does_not_cost_without_limit():
    """5,000 x 2 pixels would be 5,000 tiles."""
    assert len(cut_tiles(1650, 100, 1.2, 0.5)) == 32
    assert cut_tiles(1651, 100, 1.2, 0.5) is None
    assert cut_tiles(2, 5000, 1.2, 0.5) is None


def test_objects_that_two_tiles_show_are_one():
    tiles = cut_tiles(*WIDE, 1.2, 0.5)  # at 0, 50 and 100
    parts = [
        refined(["star"], [[0.6, 0.2, 0.8, 0.4]], [0.7]),
        refined(["star", "ring"], [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.7, 0.7]], [0.9, 0.8]),
        refined(["ring"], [[0.0, 0.5, 0.2, 0.7]], [0.95]),  # the ring again, cut
    ]
    joined = join_tiles(parts, tiles, *WIDE, 0.5, 10)
    assert joined.labels == ["star", "ring"]
    assert_close(joined.boxes, torch.tensor([[0.3, 0.2, 0.4, 0.4], [0.5, 0.5, 0.6, 0.7]]))
    assert_close(joined.region_features[:, 1:], joined.boxes)
    assert joined.region_features[:, 0].tolist() == [0, 1]  # those of the tile that shows them best


def test_a_part_that_looks_like_something_else_is_dropped():
    """An arm of a cross, which a tile shows without the rest."""
    tiles = cut_tiles(*WIDE, 1.2, 0.5)
    whole, arm = refined(["cross"], [[0.4, 0.2, 0.7, 0.8]], [0.6]), refined(["ring"], [[0.0, 0.4, 0.2, 0.6]], [0.9])
    assert join_tiles([whole, arm, refined([], [], [])], tiles, *WIDE, 0.5, 10).labels == ["cross"]


def test_a_piece_is_dropped_where_its_tile_shows_no_more_of_the_object():
    tiles = cut_tiles(*WIDE, 1.2, 0.5)
    whole = refined(["star"], [[0.5, 0.2, 0.9, 0.8]], [0.6])
    piece = refined(["ring"], [[0.0, 0.2, 0.4, 0.8]], [0.9])  # wrongly named, since it is cut
    nothing = refined([], [], [])
    assert join_tiles([whole, piece, nothing], tiles, *WIDE, 0.5, 10).labels == ["star"]


def test_a_piece_of_what_no_tile_shows_whole_stays():
    tiles = cut_tiles(*WIDE, 1.2, 0.5)
    nothing = refined([], [], [])
    joined = join_tiles([refined(["star"], [[0.5, 0.2, 1.0, 0.8]], [0.6]), nothing, nothing], tiles, *WIDE, 0.5, 10)
    assert joined.labels == ["star"]


def test_something_inside_a_larger_object_stays():
    tiles = cut_tiles(*WIDE, 1.2, 0.5)
    large = refined(["star", "ring"], [[0.1, 0.1, 0.5, 0.9], [0.25, 0.4, 0.35, 0.6]], [0.9, 0.8])
    nothing = refined([], [], [])
    assert join_tiles([large, nothing, nothing], tiles, *WIDE, 0.5, 10).labels == ["star", "ring"]


def test_masks_are_those_of_the_picture():
    tiles = cut_tiles(*WIDE, 1.2, 0.5)
    masks = torch.zeros(1, 100, 100, dtype=torch.bool)
    masks[0, 20:40, 50:70] = True
    parts = [refined([], [], [], masks[:0]), refined(["star"], [[0.5, 0.2, 0.7, 0.4]], [0.9], masks)]
    joined = join_tiles([*parts, refined([], [], [], masks[:0])], tiles, *WIDE, 0.5, 10)
    assert joined.masks.shape == (1, 100, 200)
    assert joined.masks[0, 20:40, 100:120].all()
    assert joined.masks.sum() == 400


def test_at_most_the_largest_number_of_objects_stays():
    tiles = cut_tiles(*WIDE, 1.2, 0.5)
    boxes = [[0.1 * place, 0.1, 0.1 * place + 0.05, 0.2] for place in range(1, 5)]
    parts = [refined(["star"] * 4, boxes, [0.9, 0.8, 0.7, 0.6])] + [refined([], [], [])] * 2
    assert len(join_tiles(parts, tiles, *WIDE, 0.5, 3).labels) == 3


def test_the_shipped_refiner_sees_in_a_long_picture_what_it_sees_in_a_square_one(tiled):
    scene = Image.open(SCENE_PICTURE).convert("RGB")
    wide = Image.new("RGB", (3 * scene.width, scene.height), scene.getpixel((0, 0)))
    wide.paste(scene, (scene.width, 0))
    alone, embedded = tiled.refine([scene, wide], return_masks=True)
    assert sorted(embedded.labels) == sorted(alone.labels)
    order = [embedded.labels.index(label) for label in alone.labels]
    if len(set(alone.labels)) == len(alone.labels):
        assert_close(embedded.boxes[order][:, 0::2] * 3 - 1, alone.boxes[:, 0::2], atol=0.03, rtol=0)
    assert embedded.masks.shape[1:] == (wide.height, wide.width)


def test_a_square_picture_and_tags_are_as_without_tiles(tiled):
    whole = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).refiner
    scene = Image.open(SCENE_PICTURE)
    for tags in (None, ["star"]):
        one, other = tiled.refine([scene], tags)[0], whole.refine([scene], tags)[0]
        assert one.labels == other.labels
        assert_close(one.boxes, other.boxes)
        assert_close(one.region_features, other.region_features)


def test_tiles_change_the_fingerprint_only_where_they_are_used(tiled):
    whole = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).refiner
    whole.config.tile_aspect_ratio = None
    before = whole.fingerprint()
    whole.config.tile_overlap = 0.3
    assert whole.fingerprint() == before
    assert tiled.fingerprint() != before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile_aspect_ratio": 0.5}, "tile_aspect_ratio must be 1 or more, got 0.5"),
        ({"tile_aspect_ratio": float("nan")}, "tile_aspect_ratio must be 1 or more"),
        ({"tile_overlap": 1.0}, "tile_overlap must be in"),
        ({"tile_aspect_ratio": 2, "region_feature_type": "detection"}, "would join those of several"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(StrictDataclassError, match=message):
        LyricsRefinerConfig(**settings)
