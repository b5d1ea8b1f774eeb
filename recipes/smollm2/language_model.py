"""SmolLM2-135M-Instruct as an ordinary checkpoint, from the GGUF file that a package ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ...utils.model_folder import write_model


def find_gguf(folder: Path) -> Path:
    """Return the GGUF file of SmolLM2 below a folder.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = sorted(folder.rglob("SmolLM2-135M-Instruct*.gguf"))
    if len(found) != 1:
        raise ValueError(f"{folder} holds {len(found)} files SmolLM2-135M-Instruct*.gguf, and one is needed.")
    return found[0]


def write_language_model(gguf: Path, out: Path) -> None:
    """Write a GGUF file as a checkpoint in bfloat16, with its tokenizer.

    Transformers refuses to save a model that it has read from GGUF. So its weights are put into a new model of the same
    configuration. The package `gguf` must be importable.

    Args:
        gguf: GGUF file.
        out: folder of the checkpoint, created if missing.
    """
    place, name = str(gguf.parent), gguf.name
    tokenizer: Any = AutoTokenizer.from_pretrained(place, gguf_file=name)
    loaded: Any = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32)
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    model: Any = AutoModelForCausalLM.from_config(type(loaded.config)(**settings))
    model.load_state_dict(loaded.state_dict())
    with write_model(out) as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
