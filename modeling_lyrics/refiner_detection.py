"""Detection with Grounding DINO: prompts of tags, and the tag that each query of the detector belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import GroundingDinoForObjectDetection, MMGroundingDinoForObjectDetection, PreTrainedTokenizerBase
from transformers.utils import logging

from .refiner_prompts import TOKENIZING, TagPrompt, build_prompts

logger = logging.get_logger(__name__)


@dataclass
class Detections:
    """All queries of the detector for one image, over all its prompts. Q queries, D the detector's width.

    Attributes:
        boxes: float tensor of shape (Q, 4), cxcywh in [0, 1].
        scores: float tensor of shape (Q,), probability of the best token that belongs to a tag.
        label_ids: int64 tensor of shape (Q,), the tag of that token, or -1.
        features: float tensor of shape (Q, D + 4), last hidden state and last reference box (cxcywh).
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    label_ids: torch.Tensor
    features: torch.Tensor

    @classmethod
    def none(cls, width: int, device: torch.device) -> Detections:
        """Return detections without any query."""
        empty = torch.zeros(0, device=device)
        return cls(empty.view(0, 4), empty, empty.long(), empty.view(0, width + 4))

    @classmethod
    def join(cls, parts: Sequence[Detections]) -> Detections:
        """Return the detections of several prompts of one image as one."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    def best_features(self, count: int) -> torch.Tensor:
        """Return at most `count` features, (count, D + 4): in their order where all fit, else the best-scored ones."""
        if len(self.features) <= count:
            return self.features
        return self.features[self.scores.argsort(descending=True, stable=True)[:count]]


def warn_of_lost_numbers(part: str, values: torch.Tensor, dtype: torch.dtype) -> None:
    """Warn of values that are not finite, which count as 0 from here on: without them, objects go missing.

    Args:
        part: part of the refiner that computed them.
        values: float tensor of any shape.
        dtype: data type of the part's weights.
    """
    if lost := int((~values.isfinite()).sum()):
        logger.warning(
            f"The refiner's {part} computed {lost:,} of {values.numel():,} numbers that are not finite, in {dtype}: "
            "these count as 0, so that objects are lost or worse. Use the refiner in float32 "
            "(`refiner_kwargs={'dtype': 'float32'}` of the processor), or check its weights."
        )


def score_tags(logits: torch.Tensor, tag_of_token: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best tag of each query, and its probability.

    Args:
        logits: float tensor of shape (Q, T), one logit per query and token of the prompt.
        tag_of_token: sequence of the index of each token's tag, or -1 for punctuation and special tokens.

    Returns:
        float32 scores (Q,) and int64 tags (Q,); score 0 and tag -1 where the prompt has no tag. A logit that is NaN has
        score 0.
    """
    tags = torch.tensor(tag_of_token, device=logits.device)
    belongs = tags >= 0
    if not belongs.any():
        return logits.new_zeros(len(logits), dtype=torch.float32), tags.new_full((len(logits),), -1)
    probabilities = logits[:, : len(tags)][:, belongs].float().sigmoid().nan_to_num(0.0)
    scores, best = probabilities.max(dim=1)
    return scores, tags[belongs][best]


def detect(
    detector: Any,
    tokenizer: PreTrainedTokenizerBase,
    pixel_values: torch.Tensor,
    tags: Sequence[Sequence[str]],
    *,
    separator: str,
    max_tokens: int,
    ask_without_tags: bool,
) -> list[Detections]:
    """Detect tags in images of one size.

    Args:
        detector: Grounding DINO of Transformers.
        tokenizer: fast tokenizer of the detector.
        pixel_values: float tensor of shape (N, 3, h, w).
        tags: list of words for each image; those that do not fit into one prompt go into further ones.
        separator: text between two tags of a prompt.
        max_tokens: longest prompt in tokens.
        ask_without_tags: whether an image without tags is detected too, with an empty prompt.

    Returns:
        `Detections` of each image.
    """
    jobs: list[tuple[int, TagPrompt]] = []
    for index, words in enumerate(tags):
        if words or ask_without_tags:
            jobs += [(index, prompt) for prompt in build_prompts(words, tokenizer, separator, max_tokens)]
    found = [[Detections.none(detector.config.d_model, pixel_values.device)] for _ in tags]
    for start in range(0, len(jobs), len(tags)):
        images, prompts = zip(*jobs[start : start + len(tags)], strict=True)
        answers = _run_detector(detector, tokenizer, pixel_values[list(images)], prompts)
        for index, detections in zip(images, answers, strict=True):
            found[index].append(detections)
    return [Detections.join(parts) for parts in found]


def _run_detector(
    detector: Any, tokenizer: PreTrainedTokenizerBase, pixel_values: torch.Tensor, prompts: Sequence[TagPrompt]
) -> list[Detections]:
    """Run the detector on images of one size with one prompt each."""
    captions = [prompt.caption for prompt in prompts]
    with TOKENIZING:
        text = tokenizer(captions, padding=True, split_special_tokens=True, return_tensors="pt")
    text = text.to(pixel_values.device)
    output = detector(pixel_values=pixel_values.to(detector.dtype), **text, return_dict=True)
    references = output.intermediate_reference_points[:, -1]
    features = torch.cat([output.last_hidden_state, references], dim=-1).float()
    masks = [torch.tensor(prompt.tag_of_token, device=output.logits.device) >= 0 for prompt in prompts]
    computed = [output.logits[index, :, : len(mask)][:, mask].flatten() for index, mask in enumerate(masks)]
    warn_of_lost_numbers("detector", torch.cat([*computed, output.pred_boxes.flatten()]), detector.dtype)
    detections = []
    for index, prompt in enumerate(prompts):
        scores, labels = score_tags(output.logits[index], prompt.tag_of_token)
        detections.append(Detections(output.pred_boxes[index].float(), scores, labels, features[index]))
    return detections


def make_mask_additive(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Convert boolean masks to additive ones (forward pre-hook of a text encoder).

    Grounding DINO passes a boolean mask to its text encoder, which eager attention would add as zeros and ones.
    """
    dtype = next(module.parameters()).dtype

    def additive(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.bool:
            return value
        allowed = torch.zeros(value.shape, dtype=dtype, device=value.device)
        return allowed.masked_fill(~value, torch.finfo(dtype).min)

    return tuple(additive(value) for value in args), {name: additive(value) for name, value in kwargs.items()}


def keep_coordinates_in_float32(detector: nn.Module) -> None:
    """Let a Grounding DINO in half precision compute with coordinates, and sample at them, in float32.

    A coordinate in bfloat16 is off by up to 1/512 of the image, and the logit of one that is rounded to 1 is infinite.
    On a CPU, PyTorch's `grid_sample` in half precision also counts memory in 16 bits (seen with PyTorch 2.13): it reads
    outside of feature maps of a few hundred positions, so that the detector computes NaN or crashes. Weights keep their
    dtype, and a detector in float32 computes as before.

    Args:
        detector: Grounding DINO of Transformers; other detectors stay as they are.
    """
    if not isinstance(detector, GroundingDinoForObjectDetection | MMGroundingDinoForObjectDetection):
        return
    model: Any = detector.model
    for module in detector.modules():
        if hasattr(module, "sampling_offsets"):
            module.get_submodule("attn").register_forward_pre_hook(_floats_to_float32, with_kwargs=True)
            module.get_submodule("output_proj").register_forward_pre_hook(_input_to_own_dtype)
    for head in (*detector.bbox_embed, *model.decoder.bbox_embed, getattr(model, "encoder_output_bbox_embed", None)):
        if head is not None:
            head.register_forward_hook(_output_to_float32)
    model.decoder.reference_points_head.register_forward_pre_hook(_input_to_own_dtype)
    for part in (model.encoder, model.decoder):
        part.register_forward_pre_hook(_coordinates_to_float32, with_kwargs=True)


def _to_float32(value: Any) -> Any:
    """Return a float tensor in float32, and anything else unchanged."""
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _floats_to_float32(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Convert all float inputs (forward pre-hook)."""
    return tuple(map(_to_float32, args)), {name: _to_float32(value) for name, value in kwargs.items()}


def _coordinates_to_float32(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Convert the coordinates among the inputs of encoder or decoder (forward pre-hook)."""
    given = ("valid_ratios", "reference_points")
    return args, {name: _to_float32(value) if name in given else value for name, value in kwargs.items()}


def _input_to_own_dtype(module: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """Convert the input to the dtype of a module's weights; quantized weights take any (forward pre-hook)."""
    dtype = next(module.parameters()).dtype
    return (args[0].to(dtype) if dtype.is_floating_point else args[0],)


def _output_to_float32(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    """Convert the output (forward hook)."""
    return output.float()
