"""The memory that stage 2 takes of one GPU, counted on the meta device: nothing is computed, and no weight is needed.

Weights in bfloat16 (the language model's in 4 bits for QLoRA: half a byte, and a float32 scale for each 64 weights);
MQ-Former, projection and LoRA trained with AdamW, in bfloat16 as they are; activations of one conversation of 1,024
tokens with one picture, kept for the backward pass.

    python benchmarks/stage2_memory.py
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from peft import get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig

from lyrics.modeling_lyrics import LyricsConfig, LyricsForConditionalGeneration, LyricsMQFormerConfig
from lyrics.trainers import LyricsSFTConfig
from lyrics.trainers.common.dry_run import count_activations
from lyrics.trainers.common.trainable_parts import lora_config, set_trained_parts

VICUNA = {"7B": (4096, 32, 32, 11008), "13B": (5120, 40, 40, 13824)}  # width, layers, heads, feed-forward width
LENGTH = 1024
GIGABYTE = 2**30


def build_model(name: str, args: LyricsSFTConfig) -> Any:
    """The paper's model on the meta device, with LoRA."""
    width, layers, heads, inner = VICUNA[name]
    vision = CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
    vision.image_size, vision.patch_size = 224, 14
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    text = LlamaConfig(**shape, intermediate_size=inner, vocab_size=32000)
    mqformer = LyricsMQFormerConfig(encoder_hidden_size=1024)
    config = LyricsConfig(vision_config=vision, mqformer_config=mqformer, text_config=text, image_token_id=32000)
    with torch.device("meta"):
        model = LyricsForConditionalGeneration(config).to(torch.bfloat16)
        set_trained_parts(model, args)
        return get_peft_model(model, lora_config(args)).to(torch.bfloat16)


def build_batch(config: Any) -> dict[str, torch.Tensor]:
    """One conversation with one picture, 16 objects and 200 tokens for the MQ-Former."""
    queries = config.mqformer_config.num_queries
    ids = torch.full((1, LENGTH), config.image_token_id)
    ids[:, queries:] = 5
    return {
        "input_ids": ids,
        "attention_mask": torch.zeros(1, 1, LENGTH, LENGTH, dtype=torch.bfloat16),
        "pixel_values": torch.zeros(1, 3, 224, 224, dtype=torch.bfloat16),
        "region_features": torch.zeros(1, 16, config.mqformer_config.region_hidden_size, dtype=torch.bfloat16),
        "region_attention_mask": torch.ones(1, 16, dtype=torch.long),
        "mqformer_input_ids": torch.ones(1, 200, dtype=torch.long),
        "mqformer_attention_mask": torch.ones(1, 200, dtype=torch.long),
    }


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    args = LyricsSFTConfig(output_dir="unused", bf16=False, report_to=[])
    print("| language model | weights | QLoRA's weights | trained, with AdamW | activations | checkpointed |")
    print("|---|---|---|---|---|---|")
    for name in VICUNA:
        model = build_model(name, args)
        named = list(model.named_parameters())
        weights = sum(one.numel() * one.element_size() for _, one in named)
        layers = [(key.replace(".base_layer", ""), one) for key, one in named if "language_model.layers" in key]
        saved = sum(one.numel() for key, one in layers if key.endswith("_proj.weight")) * (2 - 0.5 - 4 / 64)
        trained = sum(one.numel() * one.element_size() for _, one in named if one.requires_grad)
        backbone, batch = model.get_base_model().model, build_batch(model.config)
        activations = [count_activations(backbone, batch)]
        model.get_base_model().activation_checkpointing_enable()
        activations.append(count_activations(backbone, batch))
        numbers = [weights, weights - saved, 3 * trained, *activations]
        print(f"| Vicuna-{name} | {' | '.join(f'{value / GIGABYTE:.1f} GB' for value in numbers)} |")


if __name__ == "__main__":
    main()
