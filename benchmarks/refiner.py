"""The refiner: pictures a second in batches and one by one, and the segmenter's memory with many boxes.

Weights are random, and thresholds are such that they see every tag, and as many objects as there may be.

    python benchmarks/refiner.py batches
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from measuring import measure, name_machine, peak_bytes
from PIL import Image

from lyrics.assets.random_model import TAGS, build_bert_tokenizer, micro_refiner_config
from lyrics.modeling_lyrics import LyricsRefinerConfig, LyricsVisualRefiner

REGIONS = 16  # objects of a picture
Shape = tuple[int, int, int]  # width, layers and heads of SAM's image encoder


def refiner_config(shape: Shape | str, vocab_size: int) -> LyricsRefinerConfig:
    """RAM with Swin-L, Grounding DINO with Swin-T and SAM as published, or a `"micro"` refiner."""
    if isinstance(shape, str):
        return micro_refiner_config(vocab_size)
    width, layers, heads = shape
    segmenter = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "global_attn_indexes": [layers * quarter // 4 - 1 for quarter in (1, 2, 3, 4)],
        "mlp_dim": 4 * width,
    }
    return LyricsRefinerConfig(
        tagger_config={"id2label": dict(enumerate(TAGS)), "threshold": 0.0},
        detector_config={"model_type": "grounding-dino", "text_config": {"vocab_size": vocab_size}},
        segmenter_config={"model_type": "sam", "vision_config": segmenter},
        max_regions=REGIONS,
        box_threshold=0.0,
    )


def build_refiner(shape: Shape | str, device: torch.device) -> LyricsVisualRefiner:
    """A refiner with random weights."""
    tokenizer = build_bert_tokenizer()
    refiner = LyricsVisualRefiner(refiner_config(shape, len(tokenizer))).to(device)
    refiner.tokenizer = tokenizer
    return refiner


def draw_pictures(count: int, width: int = 320, height: int = 320) -> list[Image.Image]:
    """Noise."""
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)) for _ in range(count)]


def measure_batches(arguments: argparse.Namespace, device: torch.device) -> None:
    """Print pictures a second in batches and one by one, and the segmenter's memory with 100 boxes."""
    refiner, pictures = build_refiner("micro", device), draw_pictures(16)
    steps: dict[str, Callable[[], Any]] = {
        name: partial(refiner.refine, pictures, batch_size=size, progress=False)
        for name, size in (("batched", 8), ("one by one", 1))
    }
    times = measure(steps, arguments.repeats, device)
    print(f"| pictures a second, batched | {16 / times['batched']:.1f} | {16 / times['one by one']:.1f} one by one |")
    views, few = refiner.preprocess(pictures[:1]), refiner.config.boxes_per_batch

    def outline(count: int) -> None:
        corners = torch.rand(count, 2, 2, device=device).sort(dim=1).values
        boxes = [corners.reshape(count, 4).clamp(0.01, 0.99)]
        with torch.no_grad():
            refiner._outline(boxes, views["segmenter_pixel_values"], views["segmenter_sizes"], None)

    hundred, one = (peak_bytes(partial(outline, count), device) / 2**20 for count in (100, few))
    print(f"| segmenter's peak memory, 100 boxes | {hundred:.0f} MB | {one:.0f} MB with {few} boxes |")


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--repeats", type=int, default=7, help="of each step (default: 7)")
    parser.add_argument("--threads", type=int, help="of the processor")
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("batches").set_defaults(run=measure_batches)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    print(f"{name_machine(device)}\n")
    arguments.run(arguments, device)


if __name__ == "__main__":
    main()
