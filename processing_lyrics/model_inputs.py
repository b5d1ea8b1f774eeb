"""Model inputs beside the pixels: placeholders, padded region features, and the text of the MQ-Former."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from .image_loading import flatten_pictures
from .spatial_text import SpatialStyle, tokenize_objects
from .visual_objects import VisualObjects

MQFormerText = Literal["none", "instruction", "spatial+instruction"]

BOS = "[BOS]"  # start of the objects, as in the first training stage; old tokenizers lack it
DEFAULT_MAX_LENGTH = 512  # BERT's positions, for tokenizers that do not say

# A fast tokenizer keeps the truncation and padding of a call, so that the calls of two threads would mix them up.
TOKENIZING = threading.RLock()


def check_placeholders(texts: Sequence[str], images: Any, image_token: str) -> None:
    """Check that there is one placeholder per image: in each text for lists of lists, else in all texts together.

    Args:
        texts: sequence of prompts.
        images: PIL images, paths, arrays or tensors, in any nesting.
        image_token: placeholder.

    Raises:
        ValueError: the numbers of placeholders and images differ; the message names both.
    """
    counts = [text.count(image_token) for text in texts]
    nested = isinstance(images, list | tuple) and bool(images) and all(isinstance(one, list | tuple) for one in images)
    if nested and len(images) == len(texts):
        for index, (count, group) in enumerate(zip(counts, images, strict=True)):
            if count != len(group):
                raise ValueError(f"Text {index} has {count} {image_token} placeholders, but {len(group)} images.")
    total = len(flatten_pictures(images))
    if sum(counts) != total:
        raise ValueError(
            f"The number of {image_token} tokens in the prompts should be the same as the number of images: "
            f"got {sum(counts)} placeholders and {total} images."
        )


def tags_of_each(tags: Any, count: int) -> list[list[str]]:
    """Return the words to look for in each of `count` images; one flat list is used for every image.

    Raises:
        ValueError: there is no word list, the numbers of lists and images differ, or a word is not a string.
    """
    if not isinstance(tags, Sequence) or isinstance(tags, str | bytes):
        raise ValueError(f"tags must be a list of words, or one list for each image, got {tags!r:.80}.")
    if tags and all(isinstance(words, str) for words in tags):
        tags = [[str(word) for word in tags]] * count
    for words in tags:
        if not isinstance(words, Sequence) or isinstance(words, str | bytes):
            raise ValueError(f"tags must be all words or all lists of words, got {words!r:.80} among {tags!r:.80}.")
        if wrong := [word for word in words if not isinstance(word, str)]:
            raise ValueError(f"tags must be strings, got {wrong[0]!r:.80}, a {type(wrong[0]).__name__}.")
    if len(tags) != count:
        raise ValueError(f"Got tags for {len(tags)} images, but {count} images.")
    return [list(words) for words in tags]


def pad_regions(objects: Sequence[VisualObjects], region_feature_size: int) -> dict[str, np.ndarray]:
    """Return the padded region features of N images.

    Args:
        objects: sequence of the visual objects of each image.
        region_feature_size: width d_r of a region feature.

    Returns:
        `region_features`, float32 of shape (N, Q, d_r), zero-padded, and `region_attention_mask`, int64 of shape (N,
        Q).

    Raises:
        ValueError: objects have features of another width; the message names both.
    """
    longest = max((len(one.region_features) for one in objects), default=0)
    features = np.zeros((len(objects), longest, region_feature_size), np.float32)
    mask = np.zeros((len(objects), longest), np.int64)
    for row, one in enumerate(objects):
        count = len(one.region_features)
        if count and one.region_features.shape[1] != region_feature_size:
            raise ValueError(
                f"The visual objects of image {row} have region features of width {one.region_features.shape[1]}, "
                f"but this model takes {region_feature_size}: they come from another refiner."
            )
        features[row, :count] = one.region_features if count else 0
        mask[row, :count] = 1
    return {"region_features": features, "region_attention_mask": mask}


def build_mqformer_text(
    mode: MQFormerText,
    tokenizer: PreTrainedTokenizerBase,
    instructions: Sequence[str],
    objects: Sequence[VisualObjects | None],
    style: SpatialStyle = "decimal",
) -> dict[str, np.ndarray]:
    """Return the tokens of the MQ-Former's text for N images, right-padded.

    With objects, the text is `[BOS] objects [CLS] instruction [SEP]`, and positions restart at `[CLS]`. Objects that do
    not fit are left out whole, the worst first; a long instruction is cut at its end. Special tokens that either
    imitates stay text.

    Args:
        mode: `"none"`, `"instruction"` or `"spatial+instruction"`.
        tokenizer: fast tokenizer of the MQ-Former.
        instructions: sequence of one text per image.
        objects: sequence of the visual objects of each image, or `None` where there are none.
        style: how objects are written, see `tokenize_objects`.

    Returns:
        `mqformer_input_ids`, `mqformer_attention_mask` and, with objects, `mqformer_position_ids`, int64 of shape (N,
        L); nothing for `"none"`.
    """
    if mode == "none":
        return {}
    limit = min(tokenizer.model_max_length, DEFAULT_MAX_LENGTH)
    pad_token_id: Any = tokenizer.pad_token_id
    spatial = [_object_ids(one, tokenizer, limit, style) if mode == "spatial+instruction" else [] for one in objects]
    ids = {  # several images may share a text
        text: tokenizer(text, truncation=True, max_length=limit, split_special_tokens=True)["input_ids"]
        for text in set(instructions)
    }
    texts = [ids[text] for text in instructions]
    rows = [[*first, *second] for first, second in zip(spatial, texts, strict=True)]
    positions = [[*range(len(first)), *range(len(second))] for first, second in zip(spatial, texts, strict=True)]
    inputs = {
        "mqformer_input_ids": pad_rows(rows, pad_token_id),
        "mqformer_attention_mask": pad_rows([[1] * len(row) for row in rows], 0),
    }
    return inputs if mode == "instruction" else inputs | {"mqformer_position_ids": pad_rows(positions, 0)}


def _object_ids(
    objects: VisualObjects | None, tokenizer: PreTrainedTokenizerBase, limit: int, style: SpatialStyle
) -> list[int]:
    """Return the tokens of `[BOS] objects`, at most `limit`; nothing without objects."""
    if objects is None or not len(objects):
        return []
    bos: Any = tokenizer.convert_tokens_to_ids(BOS)  # asked for by name: the whole vocabulary takes 20 ms to make
    start = [] if bos in (None, tokenizer.unk_token_id) else [bos]
    boxes = objects.boxes.tolist()
    return [*start, *tokenize_objects(objects.labels, boxes, tokenizer, limit - len(start), style).input_ids]


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> np.ndarray:
    """Return rows as an int64 array of shape (N, longest), padded on the right with `value`."""
    padded = np.full((len(rows), max(map(len, rows), default=0)), value, np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded
