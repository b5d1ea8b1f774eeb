"""What a run is going to do, before it does it: parameters, tokens, memory, and the first batch as text."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from ..data.datasets import NOT_FOR_THE_MODEL
from ..pretraining_collator import CAPTION, SPATIAL
from .trainable_parts import describe_trained

MEGABYTE = 2**20


def describe_pretraining(trainer: Any) -> str:
    """The plan of a `LyricsPretrainingTrainer` as lines of text. Nothing is trained; one batch is read."""
    batch = next(iter(trainer.get_train_dataloader()))
    samples, *_ = (batch.pop(name, None) for name in NOT_FOR_THE_MODEL)
    weights = ", ".join(f"{name} {weight:g}" for name, weight in trainer.model.config.loss_weights().items())
    return "\n".join(
        [
            describe_trained(trainer.model),
            f"Objectives: {weights}",
            *_describe_steps(trainer, batch),
            *_describe_memory(trainer, trainer.model, batch),
            *_describe_batch(trainer.collator.tokenizer, batch, samples),
        ]
    )


def describe_sft(trainer: Any) -> str:
    """The plan of a `LyricsSFTTrainer` as lines of text. Nothing is trained; one batch is read."""
    batch = next(iter(trainer.get_train_dataloader()))
    samples, *_ = (batch.pop(name, None) for name in NOT_FOR_THE_MODEL)
    labels = batch.pop("labels")
    tokens, real = batch["input_ids"].numel(), int(batch["attention_mask"].sum())
    lines = [
        describe_trained(trainer.model),
        _describe_step(trainer.args),
        f"First batch: {len(labels)} rows, {real:,} tokens ({real / tokens:.0%} of what is computed), "
        f"{int((labels >= 0).sum()):,} of them learned, {len(batch.get('pixel_values', ())):,} pictures",
    ]
    if not trainer.args.load_in_4bit:  # a language model in 4 bits runs on its own device alone
        base = getattr(trainer.model, "get_base_model", lambda: trainer.model)()
        rows, length = batch["input_ids"].shape
        # Transformers looks at the values of a mask of two dimensions, and there will be none
        batch["attention_mask"] = torch.zeros(rows, 1, length, length, dtype=base.dtype)
        lines += _describe_memory(trainer, base.model, batch)
    return "\n".join([*lines, *_describe_answers(trainer.processing_class, batch["input_ids"], labels, samples)])


def _describe_answers(
    processor: Any, input_ids: torch.Tensor, labels: torch.Tensor, samples: list[str], rows: int = 2
) -> list[str]:
    """The first rows decoded, with what is learned between marks and each picture as one placeholder."""
    lines = ["Rows as the model reads them; it learns what stands between >>> and <<<."]
    image = re.escape(processor.image_token)
    for row, sample in enumerate(samples[:rows]):
        ids, learned = input_ids[row], labels[row] >= 0
        edges = [0, *(torch.diff(learned.int()).nonzero().flatten() + 1).tolist(), len(ids)]
        texts = []
        for start, end in pairwise(edges):
            text = processor.tokenizer.decode(ids[start:end])
            text = re.sub(rf"({image}\s*)+", lambda found: f"[{found[0].count(processor.image_token)} tokens]", text)
            texts.append(f" >>>{text}<<< " if learned[start] else text)
        padding = processor.tokenizer.pad_token
        lines += [f"Row {sample}", "  " + "".join(texts).replace(padding, "").strip().replace("\n", "\n  ")]
    return lines


def _describe_step(args: Any) -> str:
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return (
        f"Step: {rows} rows = {args.per_device_train_batch_size} x {args.gradient_accumulation_steps} accumulated x "
        f"{args.world_size} processes"
    )


def _describe_steps(trainer: Any, batch: dict[str, torch.Tensor]) -> list[str]:
    tokens = int((batch["segment_ids"] > 0).sum())
    regions = int(batch["region_attention_mask"].sum()) if "region_attention_mask" in batch else 0
    queries = trainer.model.config.mqformer_config.num_queries
    size = len(batch["pixel_values"])
    return [
        _describe_step(trainer.args),
        f"First batch: {size} rows, {tokens:,} tokens of text ({tokens / batch['segment_ids'].numel():.0%} of what is "
        f"computed), {regions:,} regions, {size * queries:,} queries",
    ]


def _describe_memory(trainer: Any, part: Any, batch: dict[str, torch.Tensor]) -> list[str]:
    """Weights, gradients and AdamW's states are counted; activations are what the first batch keeps for backward.

    `part` is what of the model runs on the batch: without a head that goes through the tokens in tiles.
    """
    sizes = {one: one.numel() * one.element_size() for one in trainer.model.parameters()}
    trained = sum(size for one, size in sizes.items() if one.requires_grad)
    weights, activations = sum(sizes.values()), count_activations(part, batch)
    if trainer.args.bf16 or trainer.args.fp16:
        activations /= 2
    total = weights + 3 * trained + activations
    return [
        f"Memory of a process, about: {total / MEGABYTE:,.0f} MB = weights {weights / MEGABYTE:,.0f} + gradients "
        f"{trained / MEGABYTE:,.0f} + AdamW {2 * trained / MEGABYTE:,.0f} + activations {activations / MEGABYTE:,.0f}"
    ]


def count_activations(model: Any, batch: dict[str, torch.Tensor]) -> float:
    """Bytes that a training step keeps for its backward pass, counted on the meta device: nothing is computed."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        kept.append(tensor)  # so that no storage is used a second time
        return tensor

    kept: list[torch.Tensor] = []
    ghost = copy.deepcopy(model).to("meta").train()
    weights = {one.untyped_storage()._cdata for one in ghost.parameters()}
    with saved_tensors_hooks(pack, lambda tensor: tensor), _without_checks():
        ghost(**{name: value.to("meta") for name, value in batch.items()})
    return float(sum(sizes.values()))


@contextmanager
def _without_checks() -> Iterator[None]:
    """Let Transformers check no values of tensors: on the meta device they have none."""
    name = "TRANSFORMERS_DISABLE_TORCH_CHECK"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def _describe_batch(tokenizer: Any, batch: dict[str, torch.Tensor], samples: list[str], rows: int = 2) -> list[str]:
    """The first rows decoded, each with what stands at the masks."""
    lines = []
    for row, sample in enumerate(samples[:rows]):
        ids, segments = batch["input_ids"][row], batch["segment_ids"][row]
        lines.append(f"Row {sample}")
        lines.append(f"  caption: {tokenizer.decode(ids[segments == CAPTION])}")
        if "masked_input_ids" not in batch:
            continue
        lines.append(f"  objects: {tokenizer.decode(ids[segments == SPATIAL])}")
        lines.append(f"  masked:  {tokenizer.decode(batch['masked_input_ids'][row][segments == SPATIAL])}")
        here = (batch["masked_positions"] // ids.shape[0] == row) & (batch["masked_labels"] >= 0)
        numbers, labels = batch["masked_items"][here].tolist(), batch["masked_labels"][here].tolist()
        items = {number: [] for number in numbers}
        for number, label in zip(numbers, labels, strict=True):
            items[number].append(label)
        lines.append(f"  to say:  {' | '.join(tokenizer.decode(labels) for labels in items.values()) or 'nothing'}")
    return lines
