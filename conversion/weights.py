"""Weights of foreign checkpoints: safe reading, renaming and splitting, and loading without a second copy."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling_lyrics.checkpoint_files import naming, read_pickled
from ..modeling_lyrics.weight_tables import WeightTable

StateDict = dict[str, torch.Tensor]
FilePath = str | os.PathLike[str]

_WRAPPERS = ("model", "state_dict")


def read_weights(path: FilePath) -> StateDict:
    """Return the tensors of a safetensors or PyTorch file, memory-mapped, without an outer `model` or `state_dict`.

    Raises:
        ValueError: if the file is missing or damaged, or holds anything but weights. It is not unpickled then, because
            that could run code.
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


def require_weights(weights: StateDict, names: tuple[str, ...], source: FilePath) -> None:
    """Raise a `ValueError` that names the file, unless it has the weights by which its layout is recognized."""
    missing = [name for name in names if name not in weights]
    if missing:
        raise ValueError(f"{os.fspath(source)!r} is not in the expected layout: it has no {', '.join(missing)}.")


def convert(weights: StateDict, table: WeightTable) -> StateDict:
    """Rename, split and drop weights by a table; the parts of a split are views, so nothing is copied."""
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
    model_class: type[PreTrainedModel], config: PreTrainedConfig, weights: StateDict, source: FilePath
) -> Any:
    """Build a model from converted weights.

    Args:
        model_class: class of the model.
        config: configuration that fits the weights.
        weights: weights under the names of the model.
        source: file that they come from, for messages.

    Returns:
        The model in evaluation mode and float32.

    Raises:
        ValueError: if weights are missing or unexpected, or have another shape.
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
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    require_fit({kind: report[kind] for kind in kinds}, f"a {model_class.__name__} of this configuration", source)
    return model


def require_fit(problems: Mapping[str, Collection[Any]], target: str, source: FilePath) -> None:
    """Raise a `ValueError` that names the file and the weights, if there are any problems.

    Args:
        problems: names of weights by kind of problem, such as `missing_keys`.
        target: description of the model that the weights should fit.
        source: file that the weights come from.
    """
    found = "; ".join(
        f"{kind.replace('_', ' ')}: {', '.join(sorted(map(str, names))[:5])}"
        for kind, names in problems.items()
        if names
    )
    if found:
        raise ValueError(f"{os.fspath(source)} does not fit {target}: {found}.")


def count_layers(weights: StateDict, pattern: str) -> int:
    """Return the number of layers; the group of `pattern` matches the index of a layer in a weight's name."""
    numbers = {int(match.group(1)) for name in weights if (match := re.search(pattern, name))}
    return max(numbers, default=-1) + 1


def infer_swin(weights: StateDict, prefix: str) -> dict[str, Any]:
    """Return fields of the `SwinConfig` of an original Swin encoder, inferred from its weights below `prefix`."""
    patches = weights[f"{prefix}patch_embed.proj.weight"]
    stages = count_layers(weights, rf"^{prefix}layers\.(\d+)\.")
    tables = [weights[f"{prefix}layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in range(stages)]
    return {
        "embed_dim": patches.shape[0],
        "patch_size": patches.shape[-1],
        "depths": [count_layers(weights, rf"^{prefix}layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages)],
        "num_heads": [table.shape[1] for table in tables],
        "window_size": (math.isqrt(tables[0].shape[0]) + 1) // 2,
        "mlp_ratio": weights[f"{prefix}layers.0.blocks.0.mlp.fc1.weight"].shape[0] / patches.shape[0],
    }
