"""Calculated operations of a training step, compared with those that torch counts."""

import pytest
import torch
from peft import get_peft_model
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.trainers import LyricsSFTCollator, LyricsSFTConfig
from lyrics.trainers.common.trainable_parts import lora_config, set_trained_parts
from lyrics.trainers.common.training_flops import ConversationSize, count_training_flops

from ...sft_parts import build_chat, build_model, build_processor


@pytest.mark.parametrize(
    ("settings", "checkpointing"),
    [
        ({}, False),
        ({"train_mqformer": False}, True),
        ({"lora_r": 3, "lora_targets": ["k_proj", "o_proj", "down_proj"]}, True),
        ({"train_language_model": True, "train_vision_model": True}, False),
    ],
)
def test_they_are_those_of_torchs_counter(settings, checkpointing, tmp_path):
    """On a step of a real model, forward and backward: with LoRA, in full, and with activation checkpointing."""
    config = build_model().config
    config._attn_implementation = "eager"  # the counter does not know the fused attention of a CPU
    model = LyricsForConditionalGeneration(config).train()
    args = LyricsSFTConfig(str(tmp_path), bf16=False, use_cpu=True, report_to=[], lora_dropout=0.0, **settings)
    set_trained_parts(model, args)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    tuned = model if args.trains("language_model") else get_peft_model(model, lora_config(args))
    batch = LyricsSFTCollator(build_processor())([build_chat(3)])
    batch = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    length, text = batch["input_ids"].shape[1], batch["mqformer_input_ids"].shape[1]
    size = ConversationSize(length, length, 1, batch["region_features"].shape[1], text)
    with FlopCounterMode(display=False) as counter, set_checkpoint_early_stop(False):
        tuned(**batch).loss.backward()
    calculated = count_training_flops(config, args, size, checkpointing)
    assert sum(calculated.values()) == pytest.approx(counter.get_total_flops(), rel=0.01)
