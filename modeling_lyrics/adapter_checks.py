"""Checks of an adapter against the model that it is loaded into.

An adapter's folder holds `lyrics_adapter.json` beside PEFT's files: the parts that were trained with it, and a mark of
its base model. Loading the adapter checks both, so that a missing connector or another base model is an error instead
of a bad answer.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers.utils.hub import cached_file

ADAPTER_FILE = "lyrics_adapter.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_TUNED = (".lora_", ".modules_to_save.")  # marks of weights that an adapter added
_SAMPLE_SIZE = 64  # values of each weight


def mark_base(model: nn.Module) -> str:
    """Return a mark of a base model: a hash of names, shapes and sampled values of its weights.

    Weights that an adapter or a quantizer may change are left out, so that the mark of an adapted model equals that of
    its base. Values are compared as bfloat16, so that the dtype does not matter. It takes milliseconds for any model
    size.
    """
    digest = hashlib.sha256()
    for name, weight in sorted((_plain_name(name), weight) for name, weight in model.named_parameters()):
        is_language = ".language_model." in f".{name}" or name.startswith("lm_head")
        may_be_quantized = is_language and weight.dim() > 1 and "embed" not in name
        if may_be_quantized or any(mark in f".{name}" for mark in _TUNED):
            continue
        flat = weight.detach().flatten()
        values = flat[:: max(1, len(flat) // _SAMPLE_SIZE)][:_SAMPLE_SIZE].to("cpu", torch.bfloat16)
        digest.update(f"{name} {tuple(weight.shape)}".encode() + values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _plain_name(name: str) -> str:
    """Return the name that a weight has in the model without adapters."""
    name = name.removeprefix("base_model.model.")
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")


def write_adapter_file(folder: str | os.PathLike[str], details: dict[str, Any]) -> None:
    """Write `lyrics_adapter.json`.

    Args:
        folder: folder of the adapter.
        details: content of the file; `base_mark`, `base_model` and `trained_parts` are required.
    """
    (Path(folder) / ADAPTER_FILE).write_text(json.dumps(details, indent=1, sort_keys=True, default=str))


def check_adapter(model: nn.Module, adapter: str | os.PathLike[str], **hub_kwargs: Any) -> None:
    """Check that an adapter is complete and was trained on this model.

    An adapter without `lyrics_adapter.json` passes.

    Args:
        model: model that receives the adapter.
        adapter: folder or Hub id of the adapter.
        hub_kwargs: arguments of `from_pretrained` that say where files come from (`revision`, `token`, ...).

    Raises:
        ValueError: the adapter lacks a trained part, or has another base model.
    """
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    file = cached_file(adapter, ADAPTER_FILE, **quiet, **hub_kwargs)
    if file is None:
        return
    details = json.loads(Path(file).read_text())
    weights = cached_file(adapter, ADAPTER_WEIGHTS, **quiet, **hub_kwargs)
    names: list[str] = []
    if weights is not None:
        with safe_open(weights, framework="pt") as opened:
            names = list(opened.keys())
    for part in details["trained_parts"]:
        if not any(f".{part}." in name for name in names):
            raise ValueError(
                f"The adapter {os.fspath(adapter)} lacks its {part}, which was trained with it: {ADAPTER_WEIGHTS} has "
                "no weight of it. Copy the whole directory, or save it again."
            )
    if details["base_mark"] != mark_base(model):
        raise ValueError(
            f"The adapter {os.fspath(adapter)} was trained on {details['base_model']!r}, and this model has other "
            "weights: load the adapter's own base model."
        )
