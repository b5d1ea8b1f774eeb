"""Detection with OWLv2, which encodes each tag alone, and sees the image in the corner of a square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from .refiner_detection import Detections, warn_of_lost_numbers
from .refiner_prompts import TOKENIZING

_PHRASE = "a photo of a {}"  # the phrase of its training


def detect_each(
    detector: Any,
    tokenizer: PreTrainedTokenizerBase,
    pixel_values: torch.Tensor,
    tags: Sequence[Sequence[str]],
    image_sizes: torch.Tensor | None,
) -> list[Detections]:
    """Detect tags in images; the detections have no features.

    Args:
        detector: `Owlv2ForObjectDetection`.
        tokenizer: CLIP's tokenizer.
        pixel_values: float tensor of shape (N, 3, s, s), images in the top left corner of a square.
        tags: list of words for each image.
        image_sizes: int64 tensor of shape (N, 2), height and width of the images; `None` for square ones.

    Returns:
        `Detections` of each image, with boxes in [0, 1] of the image.

    Raises:
        ValueError: a tag is too long; the message names it.
    """
    found = [Detections.none(0, pixel_values.device) for _ in tags]
    asked = [index for index, words in enumerate(tags) if words]
    if not asked:
        return found
    rows = [_tokenize(tags[index], tokenizer, detector.config.text_config.max_position_embeddings) for index in asked]
    length, most = max(len(ids) for row in rows for ids in row), max(map(len, rows))
    input_ids = torch.zeros(len(asked), most, length, dtype=torch.long)  # a phrase that begins with 0 is ignored
    attention_mask = torch.zeros_like(input_ids)
    attention_mask[:, :, 0] = 1
    for row, phrases in enumerate(rows):
        for place, ids in enumerate(phrases):
            input_ids[row, place, : len(ids)] = torch.tensor(ids)
            attention_mask[row, place, : len(ids)] = 1
    output = detector(
        input_ids=input_ids.flatten(0, 1).to(pixel_values.device),
        attention_mask=attention_mask.flatten(0, 1).to(pixel_values.device),
        pixel_values=pixel_values[asked].to(detector.dtype),
    )
    for row, index in enumerate(asked):
        computed = output.logits[row, :, : len(rows[row])], output.pred_boxes[row]
        warn_of_lost_numbers("detector", torch.cat([one.flatten() for one in computed]), detector.dtype)
        probabilities = output.logits[row, :, : len(rows[row])].float().sigmoid().nan_to_num(0.0)
        scores, labels = probabilities.max(dim=1)
        boxes = output.pred_boxes[row].float()
        if image_sizes is not None:  # from the square's units to the image's
            height, width = image_sizes[index].tolist()
            side = max(height, width)
            boxes = boxes * boxes.new_tensor([side / width, side / height, side / width, side / height])
        found[index] = Detections(boxes, scores, labels, boxes.new_zeros(len(boxes), 4))
    return found


def _tokenize(tags: Sequence[str], tokenizer: PreTrainedTokenizerBase, longest: int) -> list[list[int]]:
    """Return the token ids of one phrase per tag."""
    phrases = [_PHRASE.format(tag.lower()) for tag in tags]
    with TOKENIZING:
        tokens = tokenizer(phrases, split_special_tokens=True)["input_ids"]
    for tag, ids in zip(tags, tokens, strict=True):
        if len(ids) > longest:
            raise ValueError(f"The tag {tag[:80]!r} takes {len(ids)} tokens; the detector takes {longest}.")
    return tokens
