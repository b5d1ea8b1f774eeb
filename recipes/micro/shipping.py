"""A trained checkpoint as the package ships it: half as large, and the same numbers wherever it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ...modeling_lyrics import LyricsForConditionalGeneration
from ...processing_lyrics import LyricsProcessor


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
