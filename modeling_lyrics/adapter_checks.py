"""What makes an adapter belong to a model: the parts that it must bring, and a mark of the model that it was made for.

A directory of an adapter holds `lyrics_adapter.json` beside PEFT's files. It is checked whenever the adapter is loaded
into a Lyrics model, so that a lost connector or another base model is an error and not a bad answer.
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
_TUNED = (".lora_", ".modules_to_save.")  # what an adapter has added to a model
_SAMPLED = 64  # values of each weight


def mark_base(model: nn.Module) -> str:
    """Identify a base model by the names, shapes and some values of weights that no adapter or quantiser touches.

    Adapters that were added already do not count, and neither does the dtype: values are taken as bfloat16. It takes
    milliseconds, whatever the model's size.
    """
    digest = hashlib.sha256()
    for name, weight in sorted((_plain_name(name), weight) for name, weight in model.named_parameters()):
        is_language = ".language_model." in f".{name}" or name.startswith("lm_head")
        may_be_quantized = is_language and weight.dim() > 1 and "embed" not in name
        if may_be_quantized or any(mark in f".{name}" for mark in _TUNED):
            continue
        flat = weight.detach().flatten()
        values = flat[:: max(1, len(flat) // _SAMPLED)][:_SAMPLED].to("cpu", torch.bfloat16)
        digest.update(f"{name} {tuple(weight.shape)}".encode() + values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _plain_name(name: str) -> str:
    """The name of a weight in the model without adapters."""
    name = name.removeprefix("base_model.model.")
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")


def write_adapter_file(folder: str | os.PathLike, details: dict[str, Any]) -> None:
    """Write `lyrics_adapter.json`: `base_mark` and `trained_parts`, and whatever else there is to say."""
    (Path(folder) / ADAPTER_FILE).write_text(json.dumps(details, indent=1, sort_keys=True, default=str))


def check_adapter(model: nn.Module, adapter: str | os.PathLike, **hub_kwargs: Any) -> None:
    """Check that an adapter is whole, and that it was made for this model. One without `lyrics_adapter.json` passes.

    Raises:
        ValueError: naming what the adapter lacks, or both base models.
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
