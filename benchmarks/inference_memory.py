"""The memory that the published 14B model takes, counted on the meta device: nothing is computed, no weight is needed.

Weights in bfloat16, or with the language model's linear layers in 4 bits (half a byte, and a float32 scale for each 64
weights, as bitsandbytes holds them); the refiner beside it; keys and values of a conversation of 1,024 tokens.

    python benchmarks/inference_memory.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import torch
from transformers import GroundingDinoConfig, LlamaConfig, SamConfig, SamVisionConfig

from lyrics.modeling_lyrics import (
    LyricsConfig,
    LyricsForConditionalGeneration,
    LyricsMQFormerConfig,
    LyricsRefinerConfig,
    LyricsVisualRefiner,
    RamConfig,
)

LENGTH = 1024
GIGABYTE = 2**30
TAGS = 4585


def count(parameters: Iterable[torch.Tensor]) -> int:
    """Numbers in all of them."""
    return sum(one.numel() for one in parameters)


def build_model() -> LyricsForConditionalGeneration:
    """EVA ViT-g, an MQ-Former of BERT-base's size, Vicuna-13B."""
    vision: Any = {"model_type": "blip_2_vision_model"}
    shape = {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "intermediate_size": 13824}
    config = LyricsConfig(
        vision_config=vision,
        mqformer_config=LyricsMQFormerConfig(encoder_hidden_size=1408),
        text_config=LlamaConfig(**shape, vocab_size=32000),
        vision_feature_layer=-1,
    )
    with torch.device("meta"):
        return LyricsForConditionalGeneration(config)


def build_refiner() -> LyricsVisualRefiner:
    """RAM with Swin-L, Grounding DINO with Swin-T and, as in the paper, SAM with ViT-H."""
    sam = SamConfig(vision_config=SamVisionConfig(hidden_size=1280, num_hidden_layers=32, num_attention_heads=16))
    labels = {index: str(index) for index in range(TAGS)}
    config = LyricsRefinerConfig(
        tagger_config=RamConfig(id2label=labels, label2id={name: index for index, name in labels.items()}),
        detector_config=GroundingDinoConfig(),
        segmenter_config=sam,
    )
    with torch.device("meta"):
        return LyricsVisualRefiner(config)


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    model, refiner = build_model(), build_refiner()
    every = count(model.parameters())
    layers = [(name, one) for name, one in model.named_parameters() if "language_model.layers" in name]
    quantized = count(one for name, one in layers if name.endswith("_proj.weight"))
    text: Any = model.config.text_config
    cache = 2 * text.num_hidden_layers * text.hidden_size * LENGTH
    parts = {
        "weights, bfloat16": 2 * every,
        "weights, language model in 4 bits": 2 * (every - quantized) + quantized * (0.5 + 4 / 64),
        "RAM and Grounding DINO, float32": 4 * count([*refiner.tagger.parameters(), *refiner.detector.parameters()]),
        "SAM (`mask` features), float32": 4 * count(refiner.segmenter.parameters()),
        f"keys and values of {LENGTH:,} tokens, bfloat16": 2 * cache,
    }
    print("| | GB |\n|---|---:|")
    for name, size in parts.items():
        print(f"| {name} | {size / GIGABYTE:.1f} |")


if __name__ == "__main__":
    main()
