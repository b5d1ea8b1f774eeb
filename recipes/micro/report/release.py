"""A trained checkpoint as the package ships it: half as large, with its card.

python -m lyrics.recipes.micro.report.release --out runs/micro --to assets/lyrics_micro
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ....modeling_lyrics import LyricsForConditionalGeneration
from ....processing_lyrics import LyricsProcessor
from ..ablations import VARIANTS
from ..pipeline.steps import Workshop
from ..refiner.assemble import measure_refiner
from .table import format_table

_CARD = Path(__file__).with_name("model_card.md")


def write_compact(checkpoint: Path, out: Path) -> int:
    """Write a checkpoint with weights of float16, which are computed with in float32 as before.

    Weights are rounded first, so that what is loaded has the fingerprint that is saved. They are all small, and float16
    keeps three more bits of them than bfloat16: with that, fewer counts were right.

    Args:
        checkpoint: model, processor and refiner.
        out: a folder, whose former content goes.

    Returns:
        Bytes of all files.

    Raises:
        ValueError: a weight is too large for float16; nothing is written then.
    """
    processor = LyricsProcessor.from_pretrained(checkpoint)
    model: Any = LyricsForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    modules: list[Any] = [processor.refiner, model]
    for module in modules:
        _round(module)
    shutil.rmtree(out, ignore_errors=True)
    for part in (processor, model):
        part.save_pretrained(out)
    for file in out.rglob("*.safetensors"):
        _halve(file)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def write_compact_language_model(checkpoint: Path, out: Path) -> None:
    """Write a language model with weights of float16; its tokenizer is built, not kept.

    Args:
        checkpoint: what the step `language` left.
        out: a folder.

    Raises:
        ValueError: a weight is too large for float16; nothing is written then.
    """
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    _round(model)
    model.save_pretrained(out)
    _halve(out / "model.safetensors")


def _halve(file: Path) -> None:
    tensors = load_file(file)
    halves = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in tensors.items()}
    save_file(halves, file, metadata={"format": "pt"})


def _round(module: torch.nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.dtype == torch.float32:
            largest = tensor.abs().max().item()
            tensor.copy_(tensor.half())
            if not tensor.isfinite().all():
                raise ValueError(f"{name} reaches {largest:g}, which float16 (up to 65504) cannot hold.")


def format_card(shop: Workshop, seen: Mapping[str, float], size: int) -> str:
    """The card of the shipped model: what it is, how it was trained, its numbers and its limits.

    Args:
        shop: of the shipped model, which has been evaluated, and of those that it is compared with.
        seen: what `measure_refiner` says of the shipped one.
        size: bytes of the files.
    """
    results = json.loads((shop.own("evaluation") / "results.json").read_text())
    accuracy = ", ".join(f"{kind} {value:.1f}" for kind, value in results["accuracy"].items())
    return _CARD.read_text().format(size=f"{size / 1e6:.1f}", accuracy=accuracy, table=format_table(shop.out), **seen)


def main() -> None:
    """Write model, processor and refiner as they ship."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/micro"), help="folder of all steps")
    parser.add_argument("--to", type=Path, default=Path("assets/lyrics_micro"), help="folder of the shipped checkpoint")
    parser.add_argument(
        "--language-to",
        type=Path,
        default=Path("assets/lyrics_micro_language"),
        help="folder of the language model that it began with",
    )
    parser.add_argument("--variant", choices=VARIANTS, default="full", help="which model (default: full)")
    arguments = parser.parse_args()
    shop = Workshop(arguments.out, arguments.variant)
    size = write_compact(shop.own("stage2") / "model", arguments.to)
    write_compact_language_model(shop.shared("language") / "model", arguments.language_to)
    seen = measure_refiner(LyricsProcessor.from_pretrained(arguments.to))
    (arguments.to / "README.md").write_text(format_card(shop, seen, size))


if __name__ == "__main__":
    main()
