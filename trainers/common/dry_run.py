"""Description of a run before it starts: parameters, tokens, memory, and the first batch as text."""

from __future__ import annotations

import copy
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import patch_environment
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

from ...datasets_lyrics.expected_answers import EXPECTED
from ...modeling_lyrics.mqformer_attention_masks import Segment
from ...processing_lyrics import LyricsProcessor
from ..data.datasets import NOT_FOR_THE_MODEL
from .trainable_parts import describe_trained

if TYPE_CHECKING:
    from ..grpo_trainer import LyricsGRPOTrainer
    from ..pretraining_trainer import LyricsPretrainingTrainer
    from ..sft_trainer import LyricsSFTTrainer

MEGABYTE = 2**20
SHOWN_ROWS = 2  # of the first batch


def describe_pretraining(trainer: LyricsPretrainingTrainer) -> str:
    """Describe a run of the first stage in lines of text. One batch is read; nothing is trained."""
    batch, samples = _first_batch(trainer)
    model: Any = trainer.model
    weights = ", ".join(f"{name} {weight:g}" for name, weight in model.config.loss_weights().items())
    tokens = int((batch["segment_ids"] > 0).sum())
    regions = int(batch["region_attention_mask"].sum()) if "region_attention_mask" in batch else 0
    size = len(batch["pixel_values"])
    return "\n".join(
        [
            describe_trained(model),
            f"Objectives: {weights}",
            _describe_step(trainer.args),
            f"First batch: {size} rows, {tokens:,} text tokens ({tokens / batch['segment_ids'].numel():.0%} of the "
            f"padded batch), {regions:,} regions, {size * model.config.mqformer_config.num_queries:,} queries",
            _describe_memory(trainer, model, batch),
            *_describe_masks(trainer.collator.tokenizer, batch, samples),
        ]
    )


def describe_sft(trainer: LyricsSFTTrainer) -> str:
    """Describe a run of the second stage in lines of text. One batch is read; nothing is trained."""
    batch, samples = _first_batch(trainer)
    model: Any = trainer.model
    labels = batch.pop("labels")
    mask = batch["attention_mask"].bool()
    tokens, real = mask.numel(), int(mask.sum())
    lines = [
        describe_trained(model),
        _describe_step(trainer.args),
        f"First batch: {len(labels)} rows, {real:,} tokens ({real / tokens:.0%} of the padded batch), "
        f"{int((labels >= 0).sum()):,} of them labels, {len(batch.get('pixel_values', ())):,} images",
    ]
    if not trainer.args.load_in_4bit:  # bitsandbytes cannot run on the meta device
        base = getattr(model, "get_base_model", lambda: model)()
        rows, length = batch["input_ids"].shape
        # Transformers reads the values of a mask of two dimensions; on the meta device there are none.
        batch["attention_mask"] = torch.zeros(rows, 1, length, length, dtype=base.dtype)
        # The trainer's loss goes through the head in tiles, so its logits are never in memory at once.
        lines.append(_describe_memory(trainer, base.model, batch))
    processor: Any = trainer.processing_class
    return "\n".join([*lines, *_describe_labels(processor, batch["input_ids"], mask, labels, samples)])


def describe_grpo(trainer: LyricsGRPOTrainer) -> str:
    """Describe a run with rewards in lines of text. One batch of prompts is read; nothing is generated or trained."""
    prompts = {row.sample: row for row in next(iter(trainer.get_train_dataloader()))}
    processor: Any = trainer.processing_class
    image = processor.image_token
    lines = [
        describe_trained(trainer.model),  # pyright: ignore[reportArgumentType]
        _describe_step(trainer.args).replace("rows", "answers"),
        f"Answers: {trainer.num_generations} to each of {len(prompts)} prompts at a time, "
        f"{trainer.max_completion_length} tokens at most",
        f"Rewards: {', '.join(trainer.reward_func_names)}",
        "Prompts as the model reads them, and what is expected.",
    ]
    for sample, row in list(prompts.items())[:SHOWN_ROWS]:
        text = processor.apply_chat_template(row.messages, add_generation_prompt=True)
        expected = {name: value for name, value in row.columns.items() if name in EXPECTED and value is not None}
        lines += [
            f"Row {sample}",
            "  " + text.replace(image, f"[{processor.num_query_tokens} tokens]").replace("\n", "\n  "),
        ]
        lines += [f"  {name}: {value}" for name, value in expected.items()]
    return "\n".join(lines)


def _first_batch(trainer: Trainer) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the tensors of the first batch, and the names of its rows."""
    batch = next(iter(trainer.get_train_dataloader()))
    samples, *_ = (batch.pop(name, None) for name in NOT_FOR_THE_MODEL)
    return batch, samples


def _describe_step(args: TrainingArguments) -> str:
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return (
        f"Step: {rows} rows = {args.per_device_train_batch_size} x {args.gradient_accumulation_steps} accumulated x "
        f"{args.world_size} processes"
    )


def _describe_memory(trainer: Trainer, module: torch.nn.Module, batch: dict[str, torch.Tensor]) -> str:
    """Estimate the memory of a process: weights, gradients, AdamW's states, and the activations of the first batch.

    Args:
        trainer: trainer with the whole model.
        module: part of the model whose activations count.
        batch: arguments of its `forward`.
    """
    assert trainer.model is not None
    sizes = {one: one.numel() * one.element_size() for one in trainer.model.parameters()}
    trained = sum(size for one, size in sizes.items() if one.requires_grad)
    weights, activations = sum(sizes.values()), count_activations(module, batch)
    if trainer.args.bf16 or trainer.args.fp16:
        activations /= 2
    total = weights + 3 * trained + activations
    return (
        f"Memory of a process, about: {total / MEGABYTE:,.0f} MB = weights {weights / MEGABYTE:,.0f} + gradients "
        f"{trained / MEGABYTE:,.0f} + AdamW {2 * trained / MEGABYTE:,.0f} + activations {activations / MEGABYTE:,.0f}"
    )


def count_activations(module: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """Return the bytes that a training step keeps for its backward pass, counted on the meta device."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        kept.append(tensor)  # so that no storage address is used a second time
        return tensor

    kept: list[torch.Tensor] = []
    plain = [one for one in module.parameters() if type(one) is torch.nn.Parameter]
    twins = {id(one): torch.nn.Parameter(one.detach().to("meta"), one.requires_grad) for one in plain}
    ghost = copy.deepcopy(module, dict(twins)).to("meta").train()  # no weight is copied
    weights = {one.untyped_storage()._cdata for one in ghost.parameters()}
    # Transformers' checks read values of tensors, and on the meta device there are none.
    without_checks = patch_environment(TRANSFORMERS_DISABLE_TORCH_CHECK=1)
    with saved_tensors_hooks(pack, lambda tensor: tensor), without_checks:
        ghost(**{name: value.to("meta") for name, value in batch.items()})
    return float(sum(sizes.values()))


def _describe_labels(
    processor: LyricsProcessor, input_ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor, samples: list[str]
) -> list[str]:
    """Decode the first rows, with labels between marks, and the placeholders of each image as their number.

    Padding is known by the mask: its token may also be the one that ends an answer.
    """
    lines = ["Rows as the model reads them; the labels are between >>> and <<<."]
    image = re.escape(processor.image_token)
    tokenizer: Any = processor.tokenizer
    for row, sample in enumerate(samples[:SHOWN_ROWS]):
        ids, learned = input_ids[row][mask[row]], labels[row][mask[row]] >= 0
        edges = [0, *(torch.diff(learned.int()).nonzero().flatten() + 1).tolist(), len(ids)]
        texts = []
        for start, end in pairwise(edges):
            text = tokenizer.decode(ids[start:end])
            text = re.sub(rf"({image}\s*)+", lambda found: f"[{found[0].count(processor.image_token)} tokens]", text)
            texts.append(f" >>>{text}<<< " if learned[start] else text)
        text = "".join(texts).strip()
        lines += [f"Row {sample}", "  " + text.replace("\n", "\n  ")]
    return lines


def _describe_masks(
    tokenizer: PreTrainedTokenizerBase, batch: dict[str, torch.Tensor], samples: list[str]
) -> list[str]:
    """Decode the first rows, each with its masked text and the masked items."""
    lines = []
    for row, sample in enumerate(samples[:SHOWN_ROWS]):
        ids, segments = batch["input_ids"][row], batch["segment_ids"][row]
        lines.append(f"Row {sample}")
        lines.append(f"  caption: {tokenizer.decode(ids[segments == Segment.CAPTION])}")
        if "masked_input_ids" not in batch:
            continue
        lines.append(f"  objects: {tokenizer.decode(ids[segments == Segment.SPATIAL])}")
        lines.append(f"  masked:  {tokenizer.decode(batch['masked_input_ids'][row][segments == Segment.SPATIAL])}")
        here = (batch["masked_positions"] // ids.shape[0] == row) & (batch["masked_labels"] >= 0)
        items: dict[int, list[int]] = {}
        for number, label in zip(
            batch["masked_items"][here].tolist(), batch["masked_labels"][here].tolist(), strict=True
        ):
            items.setdefault(number, []).append(label)
        lines.append(f"  labels:  {' | '.join(str(tokenizer.decode(ids)) for ids in items.values()) or 'none'}")
    return lines
