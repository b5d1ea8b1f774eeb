"""RAM's original checkpoints (`ram_swin_large_14m.pth`), converted to `RamForImageTagging`."""

from __future__ import annotations

from pathlib import Path

from ..modeling_lyrics import RamConfig, RamForImageTagging
from ..modeling_lyrics.configuration_ram import read_tag_thresholds
from ..modeling_lyrics.published_config import ram_config_dict, read_lines
from ..modeling_lyrics.weight_tables import RAM
from .weights import (
    FilePath,
    StateDict,
    convert,
    count_layers,
    infer_swin,
    load_converted,
    read_weights,
    require_weights,
)


def load_ram(
    checkpoint: FilePath,
    tag_list: FilePath,
    *,
    chinese_tag_list: FilePath | None = None,
    tag_thresholds: FilePath | None = None,
    image_size: int = 384,
    num_attention_heads: int = 4,
) -> RamForImageTagging:
    """Load RAM; all sizes except the last two arguments are inferred from the weights.

    Args:
        checkpoint: original `.pth` file.
        tag_list: file with one tag per line, in the order of the label embeddings.
        chinese_tag_list: file with the same tags in Chinese.
        tag_thresholds: file with one threshold per tag and line; by default 0.68 for all tags.
        image_size: side of the input in pixels.
        num_attention_heads: number of attention heads of the tagging head.

    Raises:
        ValueError: if a file is damaged or has another layout, or the files do not fit together.
    """
    weights, config = read_ram(checkpoint, tag_list, chinese_tag_list, tag_thresholds, image_size, num_attention_heads)
    return load_converted(RamForImageTagging, config, convert(weights, RAM), checkpoint)


def read_ram(
    checkpoint: FilePath,
    tag_list: FilePath,
    chinese_tag_list: FilePath | None,
    tag_thresholds: FilePath | None,
    image_size: int,
    num_attention_heads: int,
) -> tuple[StateDict, RamConfig]:
    """Return RAM's original weights and a configuration that fits them; arguments and errors as in `load_ram`."""
    weights = read_weights(checkpoint)
    weights = {name.replace("vision_multi.", "tagging_head.", 1): tensor for name, tensor in weights.items()}
    require_weights(weights, ("label_embed", "fc.weight", "visual_encoder.patch_embed.proj.weight"), checkpoint)
    tags = read_lines(Path(tag_list).read_text(encoding="utf-8"))
    if len(tags) != len(weights["label_embed"]):
        raise ValueError(f"{tag_list} has {len(tags)} tags, but {checkpoint} has {len(weights['label_embed'])}.")
    chinese = None if chinese_tag_list is None else read_lines(Path(chinese_tag_list).read_text(encoding="utf-8"))
    head = {
        "hidden_size": weights["fc.weight"].shape[1],
        "num_hidden_layers": count_layers(weights, r"^tagging_head\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": num_attention_heads,
        "intermediate_size": weights["tagging_head.encoder.layer.0.intermediate.dense.weight"].shape[0],
    }
    fields = ram_config_dict({"image_size": image_size, **infer_swin(weights, "visual_encoder.")}, head, tags, chinese)
    if tag_thresholds is not None:
        fields["threshold"] = read_tag_thresholds(tag_thresholds, len(tags))
    fields["tag_embedding_size"] = weights["label_embed"].shape[1]
    return weights, RamConfig(**fields)
