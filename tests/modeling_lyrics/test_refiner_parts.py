"""Prompts, selection of objects and pooling under masks, each against its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lyrics.assets.random_model import build_bert_tokenizer
from lyrics.modeling_lyrics.refiner_detection import Detections, score_tags
from lyrics.modeling_lyrics.refiner_images import (
    detector_size,
    detector_view,
    resize,
    resize_as_numbers,
    segmenter_view,
    square_view,
    tagger_view,
    to_pixels,
    to_tensor,
)
from lyrics.modeling_lyrics.refiner_prompts import build_prompts
from lyrics.modeling_lyrics.refiner_regions import (
    box_coverage,
    box_iou,
    non_maximum_suppression,
    pool_masks,
    select_objects,
)

TOKENIZER = build_bert_tokenizer()


def detections(boxes, scores, labels=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    scores = torch.tensor(scores, dtype=torch.float32)
    labels = torch.zeros(len(scores), dtype=torch.long) if labels is None else torch.tensor(labels)
    return Detections(boxes, scores, labels, torch.zeros(len(scores), 6))


# ---------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    ("tags", "captions"),
    [
        (["chair", "clock"], ["chair, clock."]),
        ([], ["."]),
        (["Fire Truck", "fire truck", "  ", ""], ["fire truck."]),
        (["st. bernard", "who?", "a\nb"], ["st bernard, who, a b."]),  # phrases end in "." and "?"
        (["a,b", "[x]", "日本", "🐱"], ["a,b, [x], 日本, 🐱."]),
        ([".", "?"], ["."]),
    ],
)
def test_captions(tags, captions):
    assert [prompt.caption for prompt in build_prompts(tags, TOKENIZER, ", ", 256)] == captions


@settings(max_examples=60)
@given(st.lists(st.text(max_size=12), max_size=30), st.integers(20, 60))
def test_every_token_knows_its_tag(tags, limit):
    """Every prompt fits, no tag is cut, and a tag's tokens are those of its words."""
    tags = [tag for tag in tags if len(TOKENIZER(tag.lower(), split_special_tokens=True)["input_ids"]) < limit - 4]
    seen = set()
    for prompt in build_prompts(tags, TOKENIZER, ", ", limit):
        ids = TOKENIZER(prompt.caption, split_special_tokens=True)["input_ids"]
        assert len(ids) == len(prompt.tag_of_token) <= limit
        assert prompt.tag_of_token[0] == prompt.tag_of_token[-1] == -1
        owners = [tag for tag in prompt.tag_of_token if tag >= 0]
        assert owners == sorted(owners)
        assert not seen & set(owners)
        seen |= set(owners)
    words = {" ".join(tag.lower().replace(".", " ").replace("?", " ").split()) for tag in tags}
    with_tokens = {word for word in words if TOKENIZER.tokenize(word)}
    assert len(seen) == len(with_tokens)


def test_a_tag_too_long_for_any_prompt_is_named():
    with pytest.raises(ValueError, match=r"The tag 'word word .* takes \d+ tokens; the detector takes 20"):
        build_prompts(["fine", "word " * 40], TOKENIZER, ", ", 20)


def test_scores_of_tags():
    """The best token of a tag counts; punctuation and special tokens do not; NaN counts as nothing."""
    logits = torch.tensor([[9.0, 0.0, 2.0, 9.0, 1.0, 9.0], [9.0, float("nan"), -1.0, 9.0, float("nan"), 9.0]])
    scores, labels = score_tags(logits, (-1, 0, 0, -1, 1, -1))
    assert labels.tolist() == [0, 0]
    torch.testing.assert_close(scores, torch.tensor([2.0, -1.0]).sigmoid())
    scores, labels = score_tags(logits, (-1, -1))
    assert scores.tolist() == [0.0, 0.0]
    assert labels.tolist() == [-1, -1]


# ---------------------------------------------------------------------------------------------------- objects


def test_degenerate_boxes_are_left_out():
    """No area, inverted, outside, not a number."""
    boxes = [
        [0.5, 0.5, 0.2, 0.2],
        [0.5, 0.5, 0.0, 0.2],
        [0.5, 0.5, -0.2, -0.2],
        [1.5, 0.5, 0.2, 0.2],
        [float("nan")] * 4,
        [0.0, 0.0, 0.4, 0.4],
    ]
    kept, scores, _ = select_objects(detections(boxes, [0.9] * 6), 0.25, 0.2, 0.6, 10)
    torch.testing.assert_close(kept, torch.tensor([[0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 0.2, 0.2]]))
    assert len(scores) == 2


def test_thresholds_are_exclusive_and_ties_keep_their_order():
    boxes = [[0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1], [0.1, 0.9, 0.1, 0.1]]
    _, _, labels = select_objects(detections(boxes, [0.5, 0.25, 0.5, 0.26], [0, 1, 2, 3]), 0.25, 0.2, 0.6, 10)
    assert labels.tolist() == [0, 2, 3]
    assert select_objects(detections(boxes, [0.5, 0.25, 0.5, 0.26]), 0.25, 0.45, 0.6, 10)[1].tolist() == [0.5, 0.5]
    _, _, none = select_objects(detections(boxes, [0.9] * 4, [-1] * 4), 0.25, 0.2, 0.6, 10)
    assert len(none) == 0


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.integers(0, 8)] * 4), max_size=12), st.floats(0, 1), st.integers(0, 12))
def test_suppression_by_its_definition(corners, threshold, limit):
    boxes = torch.tensor(corners, dtype=torch.float32).view(-1, 4)
    boxes = torch.cat([boxes[:, :2].minimum(boxes[:, 2:]), boxes[:, :2].maximum(boxes[:, 2:]) + 1], dim=1)
    iou = [box_iou(box, boxes) for box in boxes]
    kept = []
    for box in range(len(boxes)):
        if len(kept) < limit and all(iou[box][other] <= threshold for other in kept):
            kept.append(box)
    assert non_maximum_suppression(boxes, threshold, limit).tolist() == kept


def test_overlap():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 5.0, 5.0]])
    expected = torch.tensor([[1.0, 1 / 7, 0.0], [1 / 7, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(torch.stack([box_iou(box, boxes) for box in boxes]), expected)


# ---------------------------------------------------------------------------------------------------- region features


def test_pooling_under_a_mask_by_its_definition():
    """The mean over all pixels of the mask of the embedding's cell that the pixel lies in."""
    torch.manual_seed(0)
    embedding, logits = torch.randn(5, 4, 4), torch.randn(3, 16, 16)
    pooled = pool_masks(embedding, logits, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3), (1.0, 1.0))
    full = embedding.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    for mask, feature in zip(logits > 0, pooled, strict=True):
        torch.testing.assert_close(feature, full[:, mask].mean(dim=1))


def test_padding_of_the_view_never_counts():
    embedding = torch.zeros(1, 4, 4)
    embedding[:, 2:], embedding[:, :, 2:] = 100.0, 100.0
    everything = torch.ones(1, 16, 16)
    pooled = pool_masks(embedding, everything, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), (0.5, 0.5))
    assert pooled.tolist() == [[0.0]]


@pytest.mark.parametrize("box", [[0.0, 0.0, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3], [1.0, 1.0, 1.0, 1.0]])
def test_an_empty_mask_falls_back_to_its_box(box):
    """The cells under the box, and at least the cell of its center."""
    embedding = torch.arange(16.0).view(1, 4, 4)
    pooled = pool_masks(embedding, -torch.ones(1, 16, 16), torch.tensor([box]), (1.0, 1.0))
    cell = embedding[0, min(3, int(box[1] * 4)), min(3, int(box[0] * 4))]
    expected = embedding[0, :2, :2].mean() if box[2] == 0.5 else cell
    torch.testing.assert_close(pooled[0, 0], expected)


def test_coverage_adds_up_to_the_area_of_the_box():
    boxes = torch.tensor([[0.1, 0.2, 0.75, 0.9], [0.0, 0.0, 1.0, 1.0]])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    torch.testing.assert_close(box_coverage(boxes, 8, 8).sum(dim=(1, 2)) / 64, area, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (1066, 800)),
        ((480, 640), (800, 1066)),
        ((1920, 1080), (1332, 750)),  # limited: round(1333 * 1080 / 1920) = 750, int(750 * 1920 / 1080) = 1333 or 1332
        ((100, 100), (800, 800)),
    ],
)
def test_size_of_the_detectors_view(size, expected):
    """Grounding DINO's own rule."""
    width, height = detector_size(*size, 800, 1333)
    assert abs(width - expected[0]) <= 1
    assert height == expected[1]


@settings(max_examples=100)
@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_no_view_is_too_large_or_too_thin(width, height):
    view = detector_size(width, height, 800, 1333)
    assert 32 <= min(view) <= 800
    assert max(view) <= 1333 + 1
    assert (width <= height) == (view[0] <= view[1]) or view[0] == view[1]


def test_one_number_normalizes_all_channels():
    picture = Image.effect_noise((5, 4), 90).convert("RGB")
    assert torch.equal(to_tensor(picture, 0.5, 0.25), to_tensor(picture, [0.5] * 3, (0.25,) * 3))


VIEWS = {
    "detector": lambda picture: detector_view(picture, 200, 333, 0.0, 1 / 255),
    "owl": lambda picture: square_view(picture, 96, 0.0, 1 / 255),
    "tagger": lambda picture: tagger_view(picture, 40, 0.0, 1 / 255),
    "padded": lambda picture: segmenter_view(picture, 128, 0.0, 1 / 255)[0],
    "stretched": lambda picture: segmenter_view(picture, 128, 0.0, 1 / 255, stretched=True)[0],
}


@pytest.mark.parametrize("size", [(120, 80), (30, 90), (3, 200)])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_torch_resizes_as_pillow_does(view, size):
    """Bytes differ by at most 1, and most not at all."""
    picture = Image.effect_noise(size, 90).convert("RGB")
    by_pillow, by_torch = view(picture), view(to_pixels(picture, torch.device("cpu")))
    difference = (by_pillow - by_torch).abs()
    assert difference.max() < 1.01
    assert difference.mean() < 0.25


@pytest.mark.parametrize("size", [(120, 80), (3, 200)])
def test_a_device_without_bytes_resizes_as_a_processor_does(size):
    pixels = to_pixels(Image.effect_noise((60, 90), 90).convert("RGB"), torch.device("cpu"))
    difference = resize_as_numbers(pixels, *size).int() - resize(pixels, *size).int()
    assert difference.abs().max() <= 1
