"""RAM's own checkpoints (`ram_swin_large_14m.pth`) -> `RamForImageTagging`."""

from __future__ import annotations

import os
from typing import Any

from ..modeling_lyrics import RamConfig, RamForImageTagging
from ..modeling_lyrics.configuration_ram import read_tag_thresholds
from ..modeling_lyrics.published_config import ram_config_dict, read_lines
from ..modeling_lyrics.weight_tables import RAM
from .swin import infer_swin
from .weights import StateDict, convert, count_layers, load_converted, read_weights, require_weights


def load_ram(
    checkpoint: str | os.PathLike,
    tag_list: str | os.PathLike,
    *,
    chinese_tag_list: str | os.PathLike | None = None,
    tag_thresholds: str | os.PathLike | None = None,
    image_size: int = 384,
    num_attention_heads: int = 4,
) -> RamForImageTagging:
    """Load RAM; all sizes but the last two arguments are read off the weights.

    Args:
        checkpoint: the original `.pth` file.
        tag_list, chinese_tag_list: one tag per line, in the order of the label embeddings.
        tag_thresholds: one number per tag and line; 0.68 for all by default.
        image_size: side of the input in pixels.
        num_attention_heads: of the tagging head.

    Raises:
        ValueError: when files do not belong together, naming them.
    """
    weights, config = read_ram(
        checkpoint,
        tag_list,
        chinese_tag_list=chinese_tag_list,
        tag_thresholds=tag_thresholds,
        image_size=image_size,
        num_attention_heads=num_attention_heads,
    )
    return load_converted(RamForImageTagging, config, convert(weights, RAM), str(checkpoint))


def read_ram(
    checkpoint: str | os.PathLike,
    tag_list: str | os.PathLike,
    *,
    chinese_tag_list: str | os.PathLike | None,
    tag_thresholds: str | os.PathLike | None,
    image_size: int,
    num_attention_heads: int,
) -> tuple[StateDict, RamConfig]:
    """The original weights of RAM and a configuration that fits them; arguments and errors as of `load_ram`."""
    weights = read_weights(checkpoint)
    weights = {name.replace("vision_multi.", "tagging_head.", 1): tensor for name, tensor in weights.items()}
    require_weights(weights, ("label_embed", "fc.weight", "visual_encoder.patch_embed.proj.weight"), checkpoint)
    tags = _read_tags(tag_list)
    if len(tags) != len(weights["label_embed"]):
        raise ValueError(f"{tag_list} has {len(tags)} tags, but {checkpoint} has {len(weights['label_embed'])}.")
    chinese = None if chinese_tag_list is None else _read_tags(chinese_tag_list)
    settings = {"image_size": image_size, **infer_swin(weights, "visual_encoder.")}
    fields = ram_config_dict(settings, _infer_head(weights, num_attention_heads), tags, chinese)
    if tag_thresholds is not None:
        fields["threshold"] = read_tag_thresholds(tag_thresholds, len(tags))
    fields["tag_embedding_size"] = weights["label_embed"].shape[1]
    return weights, RamConfig(**fields)


def _infer_head(weights: StateDict, num_attention_heads: int) -> dict[str, Any]:
    layer = "tagging_head.encoder.layer.0."
    return {
        "hidden_size": weights["fc.weight"].shape[1],
        "num_hidden_layers": count_layers(weights, r"^tagging_head\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": num_attention_heads,
        "intermediate_size": weights[f"{layer}intermediate.dense.weight"].shape[0],
    }


def _read_tags(path: str | os.PathLike) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return read_lines(file.read())
