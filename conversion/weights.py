"""Foreign checkpoint files -> our modules: read without running code, rename and split, load without a second copy."""

from __future__ import annotations

import os
import re
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling_lyrics.checkpoint_files import naming, read_pickled
from ..modeling_lyrics.weight_tables import WeightTable

StateDict = dict[str, torch.Tensor]

_WRAPPERS = ("model", "state_dict")


def read_weights(path: str | os.PathLike) -> StateDict:
    """The tensors of a safetensors or a PyTorch file, mapped into memory and not read until they are used.

    A `{"model": ...}` or `{"state_dict": ...}` around them is taken off.

    Raises:
        ValueError: naming the file, when it is damaged, or when it holds anything but weights: unpickling that could
            run code, and is refused.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"There is no checkpoint file {path!r}.")
    with naming(path):
        if path.endswith(".safetensors"):
            return load_file(path)
        weights = read_pickled(path, map_location="cpu")
    if not isinstance(weights, dict):
        raise ValueError(f"{path!r} holds no weights by name.")
    for wrapper in _WRAPPERS:
        if isinstance(weights.get(wrapper), dict):
            weights = weights[wrapper]
    return {name: tensor for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)}


def require_weights(weights: StateDict, names: tuple[str, ...], source: str | os.PathLike) -> None:
    """Check for weights that tell a layout.

    Raises:
        ValueError: naming the file and what it lacks.
    """
    missing = [name for name in names if name not in weights]
    if missing:
        raise ValueError(f"{os.fspath(source)!r} is not in the expected layout: it has no {', '.join(missing)}.")


def convert(weights: StateDict, table: WeightTable) -> StateDict:
    """Rename and split by a table; parts of a split are views, so nothing is copied."""
    converted: StateDict = {}
    for name, tensor in weights.items():
        for old, new in table.renames:
            name = re.sub(old, new, name, count=1)
        if any(re.search(pattern, name) for pattern in table.dropped):
            continue
        for old, parts in table.splits:
            if re.search(old + "$", name):
                for part, chunk in zip(parts, tensor.chunk(len(parts)), strict=True):
                    converted[re.sub(old + "$", part, name)] = chunk
                break
        else:
            converted[name] = tensor
    return converted


def load_converted(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, weights: StateDict, source: str
) -> Any:
    """A model with these weights.

    Raises:
        ValueError: naming the source and the weights, when some are missing, superfluous or of another shape.
    """
    loaded: Any = model_class.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    model, report = loaded
    problems = {kind: sorted(map(str, report[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(problems.values()):
        found = "; ".join(
            f"{kind.replace('_', ' ')}: {', '.join(names[:5])}" for kind, names in problems.items() if names
        )
        raise ValueError(f"{source} does not fit a {model_class.__name__} of this configuration: {found}.")
    return model


def count_layers(weights: StateDict, pattern: str) -> int:
    """How many layers there are; `pattern` has one group, the layer's number."""
    numbers = {int(match.group(1)) for name in weights if (match := re.search(pattern, name))}
    return max(numbers, default=-1) + 1
