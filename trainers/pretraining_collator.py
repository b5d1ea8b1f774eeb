"""Collator of the first stage: rows of images and captions become batches of `LyricsForPreTraining`, masks included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging

from ..datasets_lyrics.path_guard import AS_GIVEN, read_image_value
from ..processing_lyrics import LyricsProcessor, VisualObjects
from ..processing_lyrics.model_inputs import DEFAULT_MAX_LENGTH, pad_regions
from ..processing_lyrics.pretraining_inputs import (
    ITEMS,
    PairText,
    add_stage_1_tokens,
    caption_inputs,
    masked_inputs,
    pair_inputs,
    tokenize_pair,
)
from ..processing_lyrics.protocols import PixelStore, StoredImage
from ..refinement.storage.picture_hash import read_file
from ..utils.seeding import generator, stable_hash
from .common.data_arguments import hint_at_store, require_one_of, require_shares
from .data.datasets import FromDataSet, describe_rows

logger = logging.get_logger(__name__)

MaskUnit = Literal["item", "object"]


@dataclass
class PreparedRow(FromDataSet):
    """Row that is ready for a batch.

    Attributes:
        sample: name of the row in random draws and in messages.
        epoch: epoch in which the row is used.
        image: upright RGB image, kept only if the refiner must still find its objects.
        pixel_values: float32 array of shape (3, H, W).
        image_id: hash of the pixels, by which equal images are recognized.
        objects: visual objects of the image, or `None` if the refiner must still find them.
        caption: caption of the image.
    """

    sample: str
    epoch: int
    image: Image.Image | None
    pixel_values: np.ndarray
    image_id: int
    objects: VisualObjects | None
    caption: str


@dataclass
class LyricsPretrainingCollator:
    """Collator of the first stage.

    A row is a mapping with an image, a caption (or a list of captions, of which each epoch draws one) and, if they are
    stored, the visual objects of the image. The processor refines images without objects. Rows may also be prepared in
    advance with `prepare`, as the datasets of `LyricsPretrainingTrainer` do.

    Args:
        processor: processor whose image processor, MQ-Former tokenizer, and refiner or store are used. The tokenizer
            gets `[BOS]`, `[DEC]` and `[MLM]`, unless it has them.
        mask_probability: probability in [0, 1] that a unit is masked.
        mask_unit: unit of masking: `"item"` (a label or one coordinate) or `"object"`.
        seed: seed of all random draws, together with the epoch and the sample's name.
        use_objects: whether the model has grounding queries; without them it reads captions alone.
        max_spatial_tokens: longest text of the objects in tokens. Beyond it, whole objects with the lowest scores are
            left out.
        caption_only_probability: probability in [0, 1] that contrast and matching see the caption of a row without its
            objects. The paper has 0. A model that is to be searched with captions needs more: with the objects' boxes
            in each text, contrast never needs the caption.
        max_caption_tokens: longest caption in tokens, special tokens included; a longer one is cut at its end.
        image_column: name of the column with images.
        caption_column: name of the column with captions.
        objects_column: name of the column with visual objects.

    Raises:
        ValueError: if an argument is outside its range.
    """

    processor: LyricsProcessor
    mask_probability: float = 0.15
    mask_unit: MaskUnit = "item"
    seed: int = 42
    use_objects: bool = True
    max_spatial_tokens: int = DEFAULT_MAX_LENGTH
    max_caption_tokens: int = 128
    caption_only_probability: float = 0.0
    image_column: str = "image"
    caption_column: str = "caption"
    objects_column: str = "visual_objects"

    def __post_init__(self) -> None:
        require_shares(self, "mask_probability", "caption_only_probability")
        require_one_of("mask_unit", self.mask_unit, ("item", "object"))
        self.tokenizer: Any = add_stage_1_tokens(self.processor.mqformer_tokenizer)
        limit = min(self.tokenizer.model_max_length, DEFAULT_MAX_LENGTH)
        for name in ("max_spatial_tokens", "max_caption_tokens"):
            if not 2 <= (length := getattr(self, name)) <= limit:
                raise ValueError(f"{name} must be between 2 and the tokenizer's {limit}, got {length}.")

    def prepare(self, row: Mapping[str, Any], sample: str | None = None, epoch: int = 0) -> PreparedRow:
        """Read the image, the caption and the objects of a row.

        Args:
            row: mapping with the columns of the collator.
            sample: name of the row; by default a hash of its content.
            epoch: epoch in which the row is used.

        Raises:
            ValueError: if the image, the caption or the objects are missing or cannot be read.
        """
        image, found = None, self._find_stored(row)
        if found is None:
            image = self._read_image(row)
        pixel_values, image_id = self._convert(image if found is None else found.pixels)
        captions = self._read_captions(row)
        if sample is None:
            sample = str(stable_hash(image_id, *captions))
        caption = captions[int(generator(self.seed, epoch, sample, "caption").integers(len(captions)))]
        objects = row.get(self.objects_column) if self.use_objects else None
        if objects is not None and not isinstance(objects, VisualObjects):
            objects = VisualObjects.from_dict(objects)
        if found is not None and objects is None:
            objects = found.objects
        kept = image if objects is None and self.use_objects else None
        source = str(row.get("dataset") or "")
        return PreparedRow(sample, epoch, kept, pixel_values, image_id, objects, caption, source=source)

    def _find_stored(self, row: Mapping[str, Any]) -> StoredImage | None:
        """Return objects and resized pixels of a row's image file, if the processor's store keeps them."""
        store = self.processor.store
        if not isinstance(store, PixelStore):
            return None
        value, _ = read_image_value(row.get(self.image_column), AS_GIVEN)
        try:
            content = read_file(value) if isinstance(value, Path) else value
        except (OSError, ValueError):  # `_read_image` raises an error that names the image
            return None
        return store.find_file(content, self.processor.image_processor) if isinstance(content, bytes) else None

    def _convert(self, image: Any) -> tuple[np.ndarray, int]:
        """Return `pixel_values` of shape (3, H, W), and the hash of an image or of its resized pixels."""
        processor = self.processor.image_processor
        if not hasattr(processor, "resize_only"):  # of another package
            pixel_values = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
            return pixel_values, stable_hash(pixel_values)
        pixels = image if isinstance(image, np.ndarray) else processor.resize_only(image)
        return processor.normalize_only(pixels), stable_hash(pixels)  # bytes are hashed in a quarter of the time

    def _read_image(self, row: Mapping[str, Any]) -> Image.Image:
        column = self.image_column
        value = row.get(column)
        if value is None:
            raise ValueError(f"The row has no image in column {column!r}; its columns are {', '.join(map(repr, row))}.")
        return self.processor.load_pictures(AS_GIVEN.check_image(value))[0]

    def _read_captions(self, row: Mapping[str, Any]) -> list[str]:
        column = self.caption_column
        value = row.get(column)
        captions = [value] if isinstance(value, str) else value
        if column not in row:
            columns = ", ".join(map(repr, row))
            raise ValueError(
                f"The row has no caption in column {column!r}; its columns are {columns}. Set `caption_column` "
                "(`--caption_column`); a folder of images needs a metadata.jsonl with captions."
            )
        if not isinstance(captions, Sequence) or not captions or not all(isinstance(one, str) for one in captions):
            raise ValueError(f"Column {column!r} must hold a caption or a list of captions, got {value!r:.100}.")
        if not all(one.strip() for one in captions):
            logger.warning_once(
                f"Column {column!r} has an empty caption, from which contrast and matching learn nothing."
            )
        return list(captions)

    def __call__(self, rows: Sequence[PreparedRow | Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch of B rows.

        Returns:
            Dictionary with the arguments of `LyricsForPreTraining.forward`, and the entries of `describe_rows`.
        """
        prepared = [row if isinstance(row, PreparedRow) else self.prepare(row) for row in rows]
        objects = self._find_objects(prepared)
        texts = [self._tokenize(row, found) for row, found in zip(prepared, objects, strict=True)]
        batch: dict[str, Any] = {"pixel_values": np.stack([row.pixel_values for row in prepared])}  # (B, 3, H, W)
        if self.use_objects:
            batch |= pad_regions(objects, self.processor.region_feature_size)
        batch |= pair_inputs(texts, self.tokenizer) | caption_inputs(texts, self.tokenizer)
        if self.use_objects:
            batch |= masked_inputs(texts, batch["input_ids"], self.tokenizer)
        batch["image_ids"] = np.array([row.image_id for row in prepared])
        batch["caption_ids"] = np.array([stable_hash(" ".join(row.caption.lower().split())) for row in prepared])
        draws = [generator(self.seed, row.epoch, row.sample, "negatives").random(2) for row in prepared]
        batch["negative_draws"] = np.array(draws, np.float32)  # (B, 2)
        if self.use_objects and self.caption_only_probability:
            draws = [generator(self.seed, row.epoch, row.sample, "caption_only").random() for row in prepared]
            batch["caption_only"] = np.array(draws) < self.caption_only_probability  # (B,)
        tensors: dict[str, Any] = {name: torch.from_numpy(values) for name, values in batch.items()}
        return tensors | describe_rows(prepared)

    def _find_objects(self, rows: Sequence[PreparedRow]) -> list[VisualObjects]:
        """Return the objects of each row; the processor refines the images of those that have none."""
        if not self.use_objects:
            return [VisualObjects() for _ in rows]
        missing = [row for row in rows if row.objects is None]
        if missing and not self.processor.has_refiner and self.processor.store is None:
            raise ValueError(
                f"Row {missing[0].sample} has no {self.objects_column!r}, and the processor has neither refiner "
                "nor store. Attach one (`processor.store`; `--store`, or `--processor` for a refiner), or train a "
                "model without grounding queries (`use_objects=False`; `num_grounding_queries: 0`)."
            )
        if missing:
            hint_at_store(self.processor)
        refined = iter(self.processor.refine([row.image for row in missing], progress=False) if missing else [])
        return [next(refined) if row.objects is None else row.objects for row in rows]

    def _tokenize(self, row: PreparedRow, objects: VisualObjects) -> PairText:
        """Tokenize a row, and draw the items that are masked."""
        text = tokenize_pair(
            self.tokenizer,
            row.caption,
            objects if self.use_objects else None,
            self.max_spatial_tokens,
            self.max_caption_tokens,
            self.processor.spatial_text,
        )
        chosen = self._draw_items(text.num_objects, generator(self.seed, row.epoch, row.sample, "mask"))
        text.mask(np.flatnonzero(chosen).tolist())
        return text

    def _draw_items(self, num_objects: int, random: np.random.Generator) -> np.ndarray:
        """Return a bool array of shape (5 * objects,); the draw of an item does not depend on the objects after it."""
        shape = (num_objects, len(ITEMS) if self.mask_unit == "item" else 1)
        chosen = random.random(shape) < self.mask_probability
        return np.broadcast_to(chosen, (num_objects, len(ITEMS))).flatten()
