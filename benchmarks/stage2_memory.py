"""The memory that stage 2 takes of one GPU, counted on the meta device: nothing is computed, and no weight is needed.

Weights in bfloat16 (the language model's in 4 bits for QLoRA: half a byte, and a float32 scale for each 64 weights);
MQ-Former, projection and LoRA trained with AdamW, in bfloat16 as they are; activations of one conversation of 1,024
tokens with one image, kept for the backward pass.

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

SIZES = {  # width, layers, heads, heads of keys and values, feed-forward width, vocabulary, whether the head is tied
    "Qwen2.5-0.5B": (896, 24, 14, 2, 4864, 151936, True),
    "Llama-3.2-1B": (2048, 16, 32, 8, 8192, 128256, True),
    "Qwen2.5-3B": (2048, 36, 16, 2, 11008, 151936, True),
    "Vicuna-7B": (4096, 32, 32, 32, 11008, 32000, False),
    "Llama-3.1-8B": (4096, 32, 32, 8, 14336, 128256, False),
    "Vicuna-13B": (5120, 40, 40, 40, 13824, 32000, False),
}
LENGTH = 1024
GIGABYTE = 2**30


def build_config(name: str) -> LyricsConfig:
    """Configuration of the paper's model, with a language model of this size in LLaMA's form."""
    width, layers, heads, key_value_heads, inner, vocabulary, is_tied = SIZES[name]
    vision = CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
    vision.image_size, vision.patch_size = 224, 14
    shape: dict[str, Any] = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    shape |= {"num_key_value_heads": key_value_heads, "intermediate_size": inner, "vocab_size": vocabulary}
    text = LlamaConfig(**shape, tie_word_embeddings=is_tied)
    mqformer = LyricsMQFormerConfig(encoder_hidden_size=1024)
    return LyricsConfig(
        vision_config=vision,
        mqformer_config=mqformer,
        text_config=text,
        image_token_id=vocabulary,
        tie_word_embeddings=is_tied,
    )


def build_model(name: str, args: LyricsSFTConfig) -> Any:
    """The paper's model on the meta device, with LoRA."""
    with torch.device("meta"):
        model = LyricsForConditionalGeneration(build_config(name)).to(torch.bfloat16)
        set_trained_parts(model, args)
        return get_peft_model(model, lora_config(args)).to(torch.bfloat16)


def build_batch(config: Any) -> dict[str, torch.Tensor]:
    """One conversation with one image, 16 objects and 200 tokens for the MQ-Former."""
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
    for name in SIZES:
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
        print(f"| {name} | {' | '.join(f'{value / GIGABYTE:.1f} GB' for value in numbers)} |")


if __name__ == "__main__":
    main()
