"""Rows of pictures and captions -> the batch of `LyricsForPreTraining`, its masks and random numbers included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken
from transformers.utils import logging

from ..datasets_lyrics.path_guard import AS_GIVEN
from ..processing_lyrics import LyricsProcessor, VisualObjects
from ..processing_lyrics.model_inputs import BOS, pad_regions, pad_rows
from ..processing_lyrics.spatial_text import SpatialTokens, tokenize_objects
from .data.datasets import FromDataSet, describe_rows
from .data.seeding import generator, stable_hash

logger = logging.get_logger(__name__)

DEC, MLM = "[DEC]", "[MLM]"
STAGE_1_TOKENS = (BOS, DEC, MLM)
SPATIAL, CAPTION = 3, 4  # `Segment`s of the model
IGNORE_INDEX = -100
ITEMS_PER_OBJECT = 5  # the label and four coordinates

MaskUnit = Literal["item", "object"]


def add_stage_1_tokens(tokenizer: Any) -> Any:
    """The same tokenizer with `[BOS]`, `[DEC]` and `[MLM]`, which BERT lacks; those it has keep their ids."""
    missing = [token for token in STAGE_1_TOKENS if token not in tokenizer.get_vocab()]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in missing], special_tokens=True)
    return tokenizer


@dataclass
class PreparedRow(FromDataSet):
    """A row that is ready to be put into a batch.

    Attributes:
        sample: its name in random draws and in messages.
        epoch: in which it is used.
        picture: upright and RGB, kept where the objects are still to be found.
        pixel_values: (3, H, W) float32.
        objects: what the refiner saw, or `None` where it is still to be asked.
        caption: the words.
    """

    sample: str
    epoch: int
    picture: Image.Image | None
    pixel_values: np.ndarray
    objects: VisualObjects | None
    caption: str


@dataclass
class _Text:
    """Token ids of a row, and what is masked of it."""

    spatial: list[int]
    masked_spatial: list[int]
    caption: list[int]
    masked: list[tuple[int, int, int, int]] = field(default_factory=list)  # position, token, item, kind


class LyricsPretrainingCollator:
    """Makes batches for the first stage.

    Rows are mappings with a picture, a caption (or several, of which an epoch draws one) and, where they are stored,
    the picture's visual objects; pictures without are refined here. They may also be prepared already (`prepare`), as
    the datasets of `LyricsPretrainingTrainer` do.

    Args:
        processor: its image processor, MQ-Former tokenizer and refiner or store are used; the tokenizer gets `[BOS]`,
            `[DEC]` and `[MLM]` where it lacks them.
        mask_probability: of an item (a label or one coordinate), or of an object with `mask_unit="object"`.
        mask_unit: what is masked as one.
        seed: of all random draws; with the epoch and the sample's name it decides them.
        use_objects: `False` for a model without grounding queries, which reads captions alone.
        max_spatial_tokens: objects are left out whole, the worst first, where their text would be longer.
        max_caption_tokens: a longer caption is cut at its end; special tokens count.
        image_column, caption_column, objects_column: of the rows.
    """

    def __init__(
        self,
        processor: LyricsProcessor,
        mask_probability: float = 0.15,
        mask_unit: MaskUnit = "item",
        seed: int = 42,
        use_objects: bool = True,
        max_spatial_tokens: int = 512,
        max_caption_tokens: int = 128,
        image_column: str = "image",
        caption_column: str = "caption",
        objects_column: str = "visual_objects",
    ) -> None:
        if not 0 <= mask_probability <= 1:
            raise ValueError(f"mask_probability must be in [0, 1], got {mask_probability}.")
        if mask_unit not in ("item", "object"):
            raise ValueError(f"mask_unit must be 'item' or 'object', got {mask_unit!r}.")
        self.processor = processor
        self.tokenizer = add_stage_1_tokens(processor.mqformer_tokenizer)
        limit = min(self.tokenizer.model_max_length, 512)
        for name, length in (("max_spatial_tokens", max_spatial_tokens), ("max_caption_tokens", max_caption_tokens)):
            if not 2 <= length <= limit:
                raise ValueError(f"{name} must be between 2 and the tokenizer's {limit}, got {length}.")
        self.mask_probability = mask_probability
        self.mask_unit: MaskUnit = mask_unit
        self.seed = seed
        self.use_objects = use_objects
        self.max_spatial_tokens = max_spatial_tokens
        self.max_caption_tokens = max_caption_tokens
        self.columns = {"image": image_column, "caption": caption_column, "objects": objects_column}

    def prepare(self, row: Mapping[str, Any], sample: str | None = None, epoch: int = 0) -> PreparedRow:
        """Read a row's picture and caption.

        Args:
            row: with the columns that the collator was told of.
            sample: the row's name; by default it is made of its content.
            epoch: in which the row is used.

        Raises:
            ValueError: when picture, caption or objects are missing or cannot be read.
        """
        picture = self._read_picture(row)
        pixel_values = np.asarray(self.processor.image_processor(picture, return_tensors="np")["pixel_values"][0])
        captions = self._read_captions(row)
        if sample is None:
            sample = str(stable_hash(pixel_values.tobytes(), *captions))
        caption = captions[int(generator(self.seed, epoch, sample, "caption").integers(len(captions)))]
        objects = row.get(self.columns["objects"]) if self.use_objects else None
        if objects is not None and not isinstance(objects, VisualObjects):
            objects = VisualObjects.from_dict(objects)
        kept = picture if objects is None and self.use_objects else None
        return PreparedRow(sample, epoch, kept, pixel_values, objects, caption)

    def _read_picture(self, row: Mapping[str, Any]) -> Image.Image:
        column = self.columns["image"]
        value = row.get(column)
        if value is None:
            raise ValueError(f"The row has no picture in column {column!r}; it has {', '.join(map(repr, row))}.")
        return self.processor.load_pictures(AS_GIVEN.check_image(value))[0]

    def _read_captions(self, row: Mapping[str, Any]) -> list[str]:
        column = self.columns["caption"]
        value = row.get(column)
        captions = [value] if isinstance(value, str) else value
        if not isinstance(captions, Sequence) or not captions or not all(isinstance(one, str) for one in captions):
            raise ValueError(f"Column {column!r} must hold a caption or a list of captions, got {value!r:.100}.")
        return list(captions)

    def __call__(self, rows: Sequence[PreparedRow | Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch of B rows.

        Returns:
            The arguments of `LyricsForPreTraining.forward`, and what `describe_rows` says of the rows.
        """
        prepared = [row if isinstance(row, PreparedRow) else self.prepare(row) for row in rows]
        objects = self._find_objects(prepared)
        texts = [self._tokenize(row, seen) for row, seen in zip(prepared, objects, strict=True)]
        batch: dict[str, Any] = {"pixel_values": np.stack([row.pixel_values for row in prepared])}
        if self.use_objects:
            batch |= pad_regions(objects, self.processor.region_feature_size)
        batch |= self._texts(texts) | self._captions(texts)
        if self.use_objects:
            batch |= self._masked(texts, batch["input_ids"].shape[1])
        batch["image_ids"] = np.array([stable_hash(row.pixel_values.tobytes()) for row in prepared])
        batch["caption_ids"] = np.array([stable_hash(" ".join(row.caption.lower().split())) for row in prepared])
        draws = [generator(self.seed, row.epoch, row.sample, "negatives").random(2) for row in prepared]
        batch["negative_draws"] = np.array(draws, np.float32)
        tensors: dict[str, Any] = {name: torch.from_numpy(values) for name, values in batch.items()}
        return tensors | describe_rows(prepared)

    def _find_objects(self, rows: Sequence[PreparedRow]) -> list[VisualObjects]:
        if not self.use_objects:
            return [VisualObjects() for _ in rows]
        missing = [row for row in rows if row.objects is None]
        if missing and not self.processor.has_refiner and self.processor.store is None:
            raise ValueError(
                f"Row {missing[0].sample} has no {self.columns['objects']!r}, and the processor has neither refiner "
                "nor store. Give it one, or train without grounding queries (`use_objects=False`)."
            )
        refined = iter(self.processor.refine([row.picture for row in missing], progress=False) if missing else [])
        return [next(refined) if row.objects is None else row.objects for row in rows]

    def _tokenize(self, row: PreparedRow, objects: VisualObjects) -> _Text:
        """Token ids, and the items that the row's draw masks."""
        tokenizer = self.tokenizer
        caption = tokenizer(
            row.caption, truncation=True, max_length=self.max_caption_tokens, split_special_tokens=True
        )["input_ids"]
        if not self.use_objects:
            return _Text([], [], caption)
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (BOS, MLM)}
        tokens = tokenize_objects(objects.labels, objects.boxes.tolist(), tokenizer, self.max_spatial_tokens - 1)
        spatial, masked_spatial = [ids[BOS], *tokens.input_ids], [ids[MLM], *tokens.input_ids]
        text = _Text(spatial, masked_spatial, caption)
        chosen = self._choose_items(tokens, generator(self.seed, row.epoch, row.sample, "mask"))
        for position, item in enumerate(tokens.item_ids, start=1):
            if item >= 0 and chosen[item]:
                text.masked.append((position, spatial[position], item, item % ITEMS_PER_OBJECT))
                masked_spatial[position] = tokenizer.mask_token_id
        return text

    def _choose_items(self, tokens: SpatialTokens, random: np.random.Generator) -> np.ndarray:
        """(5 * objects,) bool; an item's draw does not depend on the objects after it."""
        shape = (tokens.num_objects, ITEMS_PER_OBJECT if self.mask_unit == "item" else 1)
        chosen = random.random(shape) < self.mask_probability
        return np.broadcast_to(chosen, (tokens.num_objects, ITEMS_PER_OBJECT)).flatten()

    def _texts(self, texts: Sequence[_Text]) -> dict[str, np.ndarray]:
        return {
            "input_ids": pad_rows([[*text.spatial, *text.caption] for text in texts], self.tokenizer.pad_token_id),
            "position_ids": pad_rows([[*range(len(text.spatial)), *range(len(text.caption))] for text in texts], 0),
            "segment_ids": pad_rows(
                [[SPATIAL] * len(text.spatial) + [CAPTION] * len(text.caption) for text in texts], 0
            ),
        }

    def _captions(self, texts: Sequence[_Text]) -> dict[str, np.ndarray]:
        """`[DEC] caption [SEP]`; the label of a position is the token after it."""
        decoder = self.tokenizer.convert_tokens_to_ids(DEC)
        ids = pad_rows([[decoder, *text.caption[1:]] for text in texts], self.tokenizer.pad_token_id)
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

    def _masked(self, texts: Sequence[_Text], length: int) -> dict[str, np.ndarray]:
        ids = pad_rows([[*text.masked_spatial, *text.caption] for text in texts], self.tokenizer.pad_token_id)
        labels, numbers = [], {}
        for row, text in enumerate(texts):
            for position, token, item, kind in text.masked:
                number = numbers.setdefault((row, item), len(numbers))
                labels.append((row * length + position, token, number, kind))
        positions, tokens, items, kinds = _pad_labels(labels, (0, IGNORE_INDEX, 0, -1))
        return {
            "masked_input_ids": ids,
            "masked_positions": positions,
            "masked_labels": tokens,
            "masked_items": items,
            "masked_kinds": kinds,
        }


def _pad_labels(labels: Sequence[tuple[int, ...]], padding: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Columns of the labels, each (K,) int64; K grows in steps, so that few shapes are compiled, and is never 0."""
    step = 16
    count = max(step, -(-len(labels) // step) * step)
    padded = np.array([*labels, *[padding] * (count - len(labels))], np.int64)
    return tuple(padded[:, column].copy() for column in range(len(padding)))
