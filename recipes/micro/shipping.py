"""A trained checkpoint as the package ships it: half as large, with its card.

python -m lyrics.recipes.micro.shipping --out runs/micro --to assets/lyrics_micro
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ...modeling_lyrics import LyricsForConditionalGeneration
from ...processing_lyrics import LyricsProcessor
from .evaluation import KINDS
from .steps import FINISHED, OWN, SHARED, Workshop

_CARD = Path(__file__).with_name("model_card.md")


def write_compact(checkpoint: Path, out: Path) -> int:
    """Write a checkpoint with weights of bfloat16, which are computed with in float32 as before.

    Weights are rounded first, so that what is loaded has the fingerprint that is saved.

    Args:
        checkpoint: model, processor and refiner.
        out: a folder.

    Returns:
        Bytes of all files.
    """
    model: Any = LyricsForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    processor = LyricsProcessor.from_pretrained(checkpoint)
    for module in (model, processor.refiner):
        for tensor in module.state_dict().values():
            if tensor.dtype == torch.float32:
                tensor.copy_(tensor.bfloat16())
    model.save_pretrained(out)
    processor.save_pretrained(out)
    for file in out.rglob("*.safetensors"):
        tensors = {
            name: tensor.bfloat16() if tensor.dtype == torch.float32 else tensor
            for name, tensor in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def format_card(shop: Workshop, size: int) -> str:
    """The model card: what the model is, how it was trained, its numbers and its limits.

    Args:
        shop: whose steps have finished.
        size: bytes of the files.
    """
    results = json.loads((shop.own("evaluation") / "results.json").read_text())
    accuracy, guessing = results["accuracy"], results["guessing"]["majority"]
    rows = [f"| {kind} | {accuracy[kind]:.1f} | {guessing[kind]:.1f} |" for kind in KINDS]
    folders = [shop.shared(step) for step in SHARED] + [shop.own(step) for step in OWN]
    seconds = sum(json.loads((folder / FINISHED).read_text())["seconds"] for folder in folders)
    return _CARD.read_text().format(
        size=f"{size / 1e6:.1f}", seed=shop.seed, minutes=round(seconds / 60), table="\n".join(rows)
    )


def main() -> None:
    """Write the full model as it ships."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/micro"), help="folder of all steps")
    parser.add_argument("--to", type=Path, default=Path("assets/lyrics_micro"), help="folder of the shipped checkpoint")
    parser.add_argument("--seed", type=int, default=0, help="of the model")
    arguments = parser.parse_args()
    shop = Workshop(arguments.out, seed=arguments.seed)
    shutil.rmtree(arguments.to, ignore_errors=True)
    size = write_compact(shop.own("stage2") / "model", arguments.to)
    (arguments.to / "README.md").write_text(format_card(shop, size))


if __name__ == "__main__":
    main()
