"""Configuration of RAM, the Recognize Anything Model, and the thresholds of its tags."""

from __future__ import annotations

import os
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_base import FINITE, POSITIVE, RATE, SHARE, CheckedConfig, check_numbers

PerChannel = list[float | int] | tuple[float | int, ...] | float | int  # three numbers, or one for all


def read_tag_thresholds(path: str | os.PathLike[str], num_tags: int) -> list[float]:
    """Read one threshold per line, in the order of the tags.

    Args:
        path: text file; empty lines are skipped.
        num_tags: number of thresholds that the file must have; 0 for a refiner without a tagger.

    Raises:
        ValueError: a line is not a number in [0, 1], the number of thresholds is not `num_tags`, or there is no tagger.
    """
    if not num_tags:
        raise ValueError(f"tag_thresholds={os.fspath(path)!r} has no effect: this refiner has no tagger. Leave it out.")
    thresholds = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file.read().split("\n"), start=1):
            if not line.strip():
                continue
            try:
                thresholds.append(float(line))
            except ValueError:
                raise ValueError(f"{path}, line {number}: {line.strip()!r} is not a number.") from None
            if not 0.0 <= thresholds[-1] <= 1.0:
                raise ValueError(f"{path}, line {number}: threshold {line.strip()} is not in [0, 1].")
    if len(thresholds) != num_tags:
        raise ValueError(f"{path} has {len(thresholds)} thresholds for {num_tags} tags.")
    return thresholds


@strict
class RamConfig(CheckedConfig):
    """Configuration of the Recognize Anything Model (RAM, arXiv 2306.03514): a Swin encoder and a tagging head.

    The vocabulary of tags is `id2label`; its order is that of the rows of the label embedding.

    Args:
        vision_config: configuration of the Swin encoder (`SwinConfig`); `image_size` is the side of the square input.
        tag_embedding_size: width of the stored label embeddings and of the projected image tokens.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: sizes of the Query2Label tagging head.
        hidden_act: activation function of the tagging head.
        hidden_dropout_prob, attention_probs_dropout_prob: dropout of the tagging head.
        layer_norm_eps: epsilon of its LayerNorms.
        initializer_range: standard deviation of new weights.
        threshold: probability above which a tag is reported; one number, or a list in the order of `id2label`.
        chinese_labels: list of the tags in Chinese, in the same order, or `None`.
        suppressed_label_ids: list of tags that are never reported (`delete_tag_index` in the original).
        image_mean, image_std: normalization of the input, RGB in [0, 1].
    """

    model_type = "ram"
    base_config_key = "tagger_config"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="swin",
            init_kwargs={
                "image_size": 384,
                "embed_dim": 192,
                "depths": [2, 2, 18, 2],
                "num_heads": [6, 12, 24, 48],
                "window_size": 12,
            },
        )
    }

    vision_config: Any = None
    tag_embedding_size: int = 512
    hidden_size: int = 768
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    layer_norm_eps: float | int = 1e-12
    initializer_range: float | int = 0.02
    threshold: float | int | list[float | int] = 0.68
    chinese_labels: list[str] | None = None
    suppressed_label_ids: list[int] | None = None
    image_mean: PerChannel = (0.485, 0.456, 0.406)
    image_std: PerChannel = (0.229, 0.224, 0.225)

    def validate_architecture(self) -> None:
        """Check numbers, the head's width, and that there is one threshold and one translation per tag.

        `@strict` calls it.
        """
        sizes = ("tag_embedding_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        check_numbers(self, POSITIVE, *sizes, "layer_norm_eps", "image_std")
        check_numbers(self, FINITE, "image_mean", "image_std")
        check_numbers(self, SHARE, "threshold")
        check_numbers(self, RATE, "hidden_dropout_prob", "attention_probs_dropout_prob")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"RamConfig: hidden_size ({self.hidden_size}) is not a multiple of num_attention_heads "
                f"({self.num_attention_heads})."
            )
        for name in ("threshold", "chinese_labels"):
            values = getattr(self, name)
            if isinstance(values, list) and len(values) != self.num_labels:
                raise ValueError(f"RamConfig: {name} has {len(values)} entries for {self.num_labels} tags.")


__all__ = ["RamConfig"]
