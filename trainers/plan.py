"""What a run is going to do, before it does it: parameters, tokens, memory, and the first batch as text."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from .pretraining_collator import CAPTION, SPATIAL

MEGABYTE = 2**20


def describe_pretraining(trainer: Any) -> str:
    """The plan of a `LyricsPretrainingTrainer` as lines of text. Nothing is trained; one batch is read."""
    batch = next(iter(trainer.get_train_dataloader()))
    samples = batch.pop("samples")
    batch.pop("position", None)
    return "\n".join(
        [
            *_describe_parameters(trainer.model),
            *_describe_steps(trainer, batch),
            *_describe_memory(trainer, batch),
            *_describe_batch(trainer.collator.tokenizer, batch, samples),
        ]
    )


def _describe_parameters(model: Any) -> list[str]:
    parts = {"vision encoder": model.model.vision_model, "MQ-Former": model.model.mqformer, "all": model}
    lines = ["Parameters (trained / frozen)"]
    for name, part in parts.items():
        total = sum(one.numel() for one in part.parameters())
        trained = sum(one.numel() for one in part.parameters() if one.requires_grad)
        lines.append(f"  {name:16} {trained:>13,} / {total - trained:,}")
    weights = ", ".join(f"{name} {weight:g}" for name, weight in model.config.loss_weights().items())
    return [*lines, f"Objectives: {weights}"]


def _describe_steps(trainer: Any, batch: dict[str, torch.Tensor]) -> list[str]:
    args = trainer.args
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    tokens = int((batch["segment_ids"] > 0).sum())
    regions = int(batch["region_attention_mask"].sum()) if "region_attention_mask" in batch else 0
    queries = trainer.model.config.mqformer_config.num_queries
    size = len(batch["pixel_values"])
    return [
        f"Step: {rows} rows = {args.per_device_train_batch_size} x {args.gradient_accumulation_steps} accumulated x "
        f"{args.world_size} processes",
        f"First batch: {size} rows, {tokens:,} tokens of text ({tokens / batch['segment_ids'].numel():.0%} of what is "
        f"computed), {regions:,} regions, {size * queries:,} queries",
    ]


def _describe_memory(trainer: Any, batch: dict[str, torch.Tensor]) -> list[str]:
    """Weights, gradients and AdamW's states are counted; activations are what the first batch keeps for backward."""
    model = trainer.model
    sizes = {one: one.numel() * one.element_size() for one in model.parameters()}
    trained = sum(size for one, size in sizes.items() if one.requires_grad)
    weights, activations = sum(sizes.values()), count_activations(model, batch)
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
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        ghost(**{name: value.to("meta") for name, value in batch.items()})
    return float(sum(sizes.values()))


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
