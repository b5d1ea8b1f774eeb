"""Inputs of the first stage: `[BOS] objects [CLS] caption [SEP]`, its masked copy, and the caption alone.

The collator of the trainer and `LyricsProcessor` make their inputs here, so that a trained first stage is used with the
texts that it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tokenizers import AddedToken
from transformers import BatchFeature, PreTrainedTokenizerBase

from .model_inputs import BOS, DEFAULT_MAX_LENGTH, TOKENIZING, pad_regions, pad_rows
from .spatial_text import SpatialStyle, read_thousandths, tokenize_objects
from .visual_objects import VisualObjects, flatten_objects

DEC, MLM = "[DEC]", "[MLM]"
STAGE_1_TOKENS = (BOS, DEC, MLM)
SPATIAL, CAPTION = 3, 4  # values of `Segment`, which the files of this folder cannot import as remote code
IGNORE_INDEX = -100
ITEMS = ("label", "x1", "y1", "x2", "y2")  # of an object
LABEL_STEP = 16  # the number of labels is padded to a multiple of this, so that few shapes are compiled

Masks = Sequence[tuple[int, str]]  # masked items of an image: number of the object, and name of the item


def add_stage_1_tokens(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Add `[BOS]`, `[DEC]` and `[MLM]` to a tokenizer in place, unless it has them, and return it."""
    missing = [token for token in STAGE_1_TOKENS if token not in tokenizer.get_vocab()]
    added = [AddedToken(token, normalized=False, special=True) for token in missing]
    tokenizer.add_tokens(added, special_tokens=True)  # pyright: ignore[reportArgumentType]
    return tokenizer


@dataclass
class PairText:
    """Tokens of the objects and the caption of an image.

    Attributes:
        spatial: list of token ids, `[BOS]` and the objects; empty for a model without grounding queries.
        caption: list of token ids, `[CLS] caption [SEP]`.
        item_ids: list of the item of each token of `spatial`, or -1; object k has the items 5k to 5k + 4.
        num_objects: number of objects that fit.
        masked: list of position, token, item and kind of each masked token; kind 0 is a label, 1 to 4 a coordinate.
    """

    spatial: list[int]
    caption: list[int]
    item_ids: list[int]
    num_objects: int
    masked: list[tuple[int, int, int, int]] = field(default_factory=list)

    def mask(self, items: Iterable[int]) -> None:
        """Mask all tokens of some items."""
        chosen = set(items)
        for position, item in enumerate(self.item_ids):
            if item in chosen:
                self.masked.append((position, self.spatial[position], item, item % len(ITEMS)))


def tokenize_pair(
    tokenizer: PreTrainedTokenizerBase,
    caption: str,
    objects: VisualObjects | None,
    max_spatial_tokens: int = DEFAULT_MAX_LENGTH,
    max_caption_tokens: int = DEFAULT_MAX_LENGTH,
    style: SpatialStyle = "decimal",
) -> PairText:
    """Tokenize the objects and the caption of an image.

    Args:
        tokenizer: fast tokenizer of the MQ-Former with `[BOS]`; special tokens that a text imitates stay text.
        caption: caption; a longer one than `max_caption_tokens` is cut at its end.
        objects: objects of the image, or `None` for a model without grounding queries, which reads the caption alone.
        max_spatial_tokens: longest text of the objects, `[BOS]` included; whole objects are left out, the worst first.
        max_caption_tokens: longest caption in tokens, special tokens included.
        style: how objects are written, see `tokenize_objects`.
    """
    words: Any = tokenizer(caption, truncation=True, max_length=max_caption_tokens, split_special_tokens=True)
    if objects is None:
        return PairText([], words["input_ids"], [], 0)
    tokens = tokenize_objects(objects.labels, objects.boxes.tolist(), tokenizer, max_spatial_tokens - 1, style)
    bos: Any = tokenizer.convert_tokens_to_ids(BOS)
    return PairText([bos, *tokens.input_ids], words["input_ids"], [-1, *tokens.item_ids], tokens.num_objects)


def pair_inputs(texts: Sequence[PairText], tokenizer: PreTrainedTokenizerBase) -> dict[str, np.ndarray]:
    """Return `input_ids`, `position_ids` and `segment_ids` (N, L) of texts; positions restart at `[CLS]`."""
    pad: Any = tokenizer.pad_token_id
    return {
        "input_ids": pad_rows([[*text.spatial, *text.caption] for text in texts], pad),
        "position_ids": pad_rows([[*range(len(text.spatial)), *range(len(text.caption))] for text in texts], 0),
        "segment_ids": pad_rows([[SPATIAL] * len(text.spatial) + [CAPTION] * len(text.caption) for text in texts], 0),
    }


def caption_inputs(texts: Sequence[PairText], tokenizer: PreTrainedTokenizerBase) -> dict[str, np.ndarray]:
    """Return `[DEC] caption [SEP]` (N, L_c); the label (K,) of a position is the token after it."""
    decoder, pad = _ids(tokenizer, DEC, tokenizer.pad_token)
    ids = pad_rows([[decoder, *text.caption[1:]] for text in texts], pad)
    labels = [
        (row * ids.shape[1] + position, token)
        for row, text in enumerate(texts)
        for position, token in enumerate(text.caption[1:])
    ]
    positions, tokens = _pad_labels(labels, (0, IGNORE_INDEX))
    return {
        "caption_input_ids": ids,
        "caption_segment_ids": pad_rows([[CAPTION] * len(text.caption) for text in texts], 0),
        "caption_positions": positions,
        "caption_labels": tokens,
    }


def masked_inputs(
    texts: Sequence[PairText], input_ids: np.ndarray, tokenizer: PreTrainedTokenizerBase
) -> dict[str, np.ndarray]:
    """Return the masked text (N, L), and the positions, tokens, items and kinds (K,) of masked tokens.

    Items are numbered over the batch in the order of their first tokens.
    """
    start, mask = _ids(tokenizer, MLM, tokenizer.mask_token)
    ids = input_ids.copy()
    ids[:, 0] = start  # instead of [BOS]
    labels: list[tuple[int, int, int, int]] = []
    numbers: dict[tuple[int, int], int] = {}
    for row, text in enumerate(texts):
        for position, token, item, kind in text.masked:
            ids[row, position] = mask
            number = numbers.setdefault((row, item), len(numbers))
            labels.append((row * ids.shape[1] + position, token, number, kind))
    positions, tokens, items, kinds = _pad_labels(labels, (0, IGNORE_INDEX, 0, -1))
    return {
        "masked_input_ids": ids,
        "masked_positions": positions,
        "masked_labels": tokens,
        "masked_items": items,
        "masked_kinds": kinds,
    }


def _ids(tokenizer: PreTrainedTokenizerBase, *tokens: Any) -> Any:
    return tokenizer.convert_tokens_to_ids(list(tokens))


def _pad_labels(labels: Sequence[tuple[int, ...]], padding: tuple[int, ...]) -> list[np.ndarray]:
    """Return the columns of the labels, each an int64 array of shape (K,), with K a positive multiple of 16."""
    count = max(LABEL_STEP, -(-len(labels) // LABEL_STEP) * LABEL_STEP)
    padded = np.array([*labels, *[padding] * (count - len(labels))], np.int64)
    return [column.copy() for column in padded.T]


class PretrainingInputs:
    """Methods of `LyricsProcessor` for a trained first stage: inputs of its methods, and what they return as data."""

    mqformer_tokenizer: Any
    region_feature_size: int
    spatial_text: SpatialStyle
    image_processor: Any
    load_pictures: Any
    _objects_of: Any

    def prepare_images(
        self, images: Any, visual_objects: Any = None, return_tensors: str | None = "pt"
    ) -> BatchFeature:
        """Prepare N images for `get_image_features`, `match` and `caption` of `LyricsForPreTraining`.

        Args:
            images: PIL images, paths, arrays or tensors, in any nesting.
            visual_objects: `VisualObjects` (or their dictionaries) of each image, instead of refining it.
            return_tensors: `"pt"` or `"np"`.

        Returns:
            `pixel_values` (N, 3, H, W) and, unless this processor has no objects, `region_features` (N, R, d_r) and
            `region_attention_mask` (N, R).

        Raises:
            ValueError: there is no image, one cannot be read, or the objects do not belong to this model.
        """
        pictures = self.load_pictures(images)
        if not pictures:
            raise ValueError("There is no image to prepare.")
        data = dict(self.image_processor(pictures, return_tensors="np"))
        objects = self._objects_of(pictures, visual_objects)
        if objects is not None:
            data |= pad_regions(objects, self.region_feature_size)
        return BatchFeature(data, tensor_type=return_tensors)

    def prepare_texts(
        self,
        texts: str | Sequence[str],
        visual_objects: Sequence[VisualObjects] | None = None,
        use_objects: bool = True,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepare N texts for `get_text_features` and `match` of `LyricsForPreTraining`.

        Args:
            texts: text or sequence of texts.
            visual_objects: objects of the image of each text, as in training; a query of a search has none.
            use_objects: bool, whether the model has grounding queries and reads `[BOS]` and objects before a text.
            return_tensors: `"pt"` or `"np"`.

        Returns:
            `input_ids`, `position_ids` and `segment_ids` (N, L).

        Raises:
            ValueError: a text is no string, the numbers of texts and objects differ, or the tokenizer is not that of a
                first stage.
        """
        pairs = self._pair_texts(texts, visual_objects, use_objects)
        return BatchFeature(pair_inputs(pairs, self.mqformer_tokenizer), tensor_type=return_tensors)

    def prepare_masked(
        self,
        images: Any,
        masks: Sequence[Masks],
        captions: Sequence[str] | None = None,
        visual_objects: Any = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepare N images, some of whose objects are partly masked, for `LyricsForPreTraining.fill`.

        A masked item has as many tokens as the given one, whose words the model does not see.

        Args:
            images: PIL images, paths, arrays or tensors, in any nesting.
            masks: sequence of one list for each image, of pairs (number of the object, item). An item is `"label"`,
                `"x1"`, `"y1"`, `"x2"` or `"y2"`, or `"box"` for all four coordinates.
            captions: caption of each image; empty by default.
            visual_objects: `VisualObjects` of each image, instead of refining it.
            return_tensors: `"pt"` or `"np"`.

        Returns:
            The images as `prepare_images` returns them, `masked_input_ids`, `position_ids`, `segment_ids` (N, L), and
            `masked_positions`, `masked_labels`, `masked_items`, `masked_kinds` (K,).

        Raises:
            ValueError: there are no objects, a mask names none of them, or what `prepare_images` refuses.
        """
        pictures = self.load_pictures(images)
        objects = self._objects_of(pictures, visual_objects)
        if objects is None:
            raise ValueError("Masked objects need objects: give visual_objects, or a processor with a refiner.")
        if len(masks) != len(pictures):
            raise ValueError(f"Got masks for {len(masks)} images, but {len(pictures)} images.")
        pairs = self._pair_texts([""] * len(pictures) if captions is None else captions, objects, True)
        for number, (pair, wanted) in enumerate(zip(pairs, masks, strict=True)):
            pair.mask(_items_of(wanted, pair.num_objects, number))
        data = pair_inputs(pairs, self.mqformer_tokenizer)
        data |= masked_inputs(pairs, data.pop("input_ids"), self.mqformer_tokenizer)
        prepared = self.prepare_images(pictures, objects, return_tensors=None)
        return BatchFeature(dict(prepared) | data, tensor_type=return_tensors)

    @property
    def caption_token_ids(self) -> dict[str, int]:
        """Ids of the tokens that start, end and pad a caption, for `LyricsForPreTraining.caption`."""
        tokenizer = self._stage_1_tokenizer()
        start, end, pad = _ids(tokenizer, DEC, tokenizer.sep_token, tokenizer.pad_token)
        return {"decoder_start_token_id": start, "eos_token_id": end, "pad_token_id": pad}

    def decode_captions(self, token_ids: Any) -> list[str]:
        """Return the captions that `LyricsForPreTraining.caption` wrote, int64 (N, L), as text."""
        return self.mqformer_tokenizer.batch_decode(token_ids, skip_special_tokens=True)

    def decode_masked(self, inputs: Any, token_ids: Any, scores: Any = None) -> list[dict[str, Any]]:
        """Return what `LyricsForPreTraining.fill` found under the masks.

        Args:
            inputs: result of `prepare_masked`.
            token_ids: int64 tensor of shape (K,), predicted tokens.
            scores: float tensor of shape (K,), their probabilities.

        Returns:
            For each masked item, in their order, a dictionary of `image`, its number; `item`, such as `"label"`;
            `value`, the words or the coordinate in [0, 1], or `None` where the tokens are no coordinate; `was`, the
            same of what was masked; and with `scores` the `score`, the product of the probabilities of its tokens.
        """
        length = inputs["masked_input_ids"].shape[1]
        found: dict[int, dict[str, Any]] = {}
        columns = [inputs[name] for name in ("masked_positions", "masked_labels", "masked_items", "masked_kinds")]
        rows = zip(*(_as_list(column) for column in (*columns, token_ids)), strict=True)
        for number, (position, label, item, kind, token) in enumerate(rows):
            if label == IGNORE_INDEX:
                continue
            one = found.setdefault(
                item, {"image": position // length, "kind": kind, "was": [], "value": [], "score": 1.0}
            )
            one["was"].append(label)
            one["value"].append(token)
            if scores is not None:
                one["score"] *= float(scores[number])
        return [self._describe_item(one, scores is not None) for one in found.values()]

    def _describe_item(self, one: dict[str, Any], has_score: bool) -> dict[str, Any]:
        """Return a masked item with words and numbers in place of tokens."""
        kind = one["kind"]
        described = {"image": one["image"], "item": ITEMS[kind]}
        for name in ("value", "was"):
            text = self.mqformer_tokenizer.decode(one[name]).strip()
            described[name] = text if kind == 0 else _as_coordinate(text, self.spatial_text)
        return described | ({"score": one["score"]} if has_score else {})

    def _pair_texts(self, texts: Any, visual_objects: Any, use_objects: bool) -> list[PairText]:
        """Return the tokens of texts, each with the objects of its image or with none."""
        tokenizer = self._stage_1_tokenizer()
        words = [texts] if isinstance(texts, str) else list(texts)
        if wrong := [one for one in words if not isinstance(one, str)]:
            raise ValueError(f"texts must be strings, got {wrong[0]!r:.80}, a {type(wrong[0]).__name__}.")
        objects = [None] * len(words) if visual_objects is None else flatten_objects(visual_objects)
        if len(objects) != len(words):
            raise ValueError(f"Got visual_objects for {len(objects)} texts, but {len(words)} texts.")
        limit = min(tokenizer.model_max_length, DEFAULT_MAX_LENGTH)
        written = [(VisualObjects() if one is None else one) if use_objects else None for one in objects]
        with TOKENIZING:
            return [
                tokenize_pair(tokenizer, text, found, limit, limit, self.spatial_text)
                for text, found in zip(words, written, strict=True)
            ]

    def _stage_1_tokenizer(self) -> Any:
        """Return the MQ-Former's tokenizer, which must have the tokens of the first stage."""
        tokenizer = self.mqformer_tokenizer
        missing = [token for token in STAGE_1_TOKENS if _ids(tokenizer, token)[0] in (None, tokenizer.unk_token_id)]
        if missing:
            raise ValueError(
                f"The MQ-Former's tokenizer has no {', '.join(missing)}: it is not that of a first stage. Load the "
                "processor that was saved with the first stage."
            )
        return tokenizer


def _items_of(masks: Masks, num_objects: int, picture: int) -> list[int]:
    """Return the numbers of the masked items of an image."""
    items: list[int] = []
    for index, name in masks:
        names = ITEMS[1:] if name == "box" else (name,)
        if not 0 <= index < num_objects or names[0] not in ITEMS:
            raise ValueError(
                f"Mask {(index, name)} of image {picture} names nothing: it has {num_objects} objects, each with "
                f"{', '.join(ITEMS)} or box."
            )
        items += [len(ITEMS) * index + ITEMS.index(one) for one in names]
    return items


def _as_coordinate(text: str, style: SpatialStyle) -> float | None:
    """Return a coordinate, or `None` for text that is none."""
    text = text.replace(" ", "")
    if style == "short":
        return read_thousandths(text)
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _as_list(values: Any) -> list[int]:
    return values.tolist() if hasattr(values, "tolist") else list(values)
