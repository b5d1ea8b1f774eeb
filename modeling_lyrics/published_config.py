"""Translation of the published `config.json`, and of the files that it names, to the fields of our configurations.

The configurations import this module, so that it may import none of them but those of their parts.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from transformers import CONFIG_MAPPING, BertConfig, PreTrainedConfig
from transformers.models.blip_2 import Blip2VisionConfig
from transformers.models.swin import SwinConfig

from .checkpoint_files import HUB_KWARGS, find_file, is_inside
from .configuration_base import name_missing_keys
from .configuration_mqformer import LyricsMQFormerConfig
from .configuration_ram import RamConfig

PUBLISHED_PRETRAINING_CLASS = "LyricsQFromerForPretrain"  # the spelling of the published file

# Tokens that the published first stage lacks, in order, and the token whose weights each one copies.
APPENDED_TOKENS = {"[BOS]": "[CLS]", "[MLM]": "[MASK]"}


def is_published_config(config: dict[str, Any]) -> bool:
    """Return whether a `config.json` is in the published layout, in contrast to that of a plain BLIP-2."""
    return config.get("model_type") == "blip-2" and {"ram_config", "detection_config"} <= config.keys()


@name_missing_keys
def translate_model_config(published: dict[str, Any]) -> dict[str, Any]:
    """Translate the published `config.json` to the fields of a `LyricsConfig`."""
    qformer, text = published["qformer_config"], published["text_config"]
    mqformer = known_fields(LyricsMQFormerConfig, qformer) | {
        "num_visual_queries": qformer["num_vit_query_tokens"],
        "num_grounding_queries": qformer["num_dino_query_tokens"],
        "region_hidden_size": published["detection_config"]["hidden_dim"] + 4,  # the field for it has a wrong default
        "normalize_vision_features": False,
    }
    return {
        "model_type": "lyrics",
        "architectures": ["LyricsForConditionalGeneration"],
        "vision_config": known_fields(Blip2VisionConfig, published["vision_config"]),
        "mqformer_config": mqformer,
        "text_config": known_fields(CONFIG_MAPPING[text["model_type"]], text, extra=("rope_theta", "rope_scaling")),
        "vision_feature_layer": -1,
        "image_token_id": text["vocab_size"],  # the published tokenizer has no placeholder: the first id after it
        "dtype": published.get("torch_dtype"),
    }


def is_pretraining_config(published: dict[str, Any]) -> bool:
    """Return whether a published `config.json` is that of a first-stage model, which has no language model."""
    return published.get("architectures") == [PUBLISHED_PRETRAINING_CLASS]


@name_missing_keys
def translate_pretraining_config(published: dict[str, Any]) -> dict[str, Any]:
    """Translate the published first-stage `config.json` to the fields of a `LyricsPreTrainingConfig`."""
    translated = translate_model_config(published)
    mqformer = translated["mqformer_config"]
    return {
        "model_type": "lyrics_pretraining",
        "architectures": ["LyricsForPreTraining"],
        "vision_config": translated["vision_config"],
        "mqformer_config": mqformer | {"vocab_size": mqformer["vocab_size"] + len(APPENDED_TOKENS)},
        "vision_feature_layer": translated["vision_feature_layer"],
        "projection_size": published["image_text_hidden_size"],
        "tie_word_embeddings": False,  # the original class ties them, the weights are not tied
        "dtype": translated["dtype"],
    }


@name_missing_keys
def translate_refiner_config(
    published: dict[str, Any], checkpoint: str | os.PathLike[str], **hub_kwargs: Any
) -> dict[str, Any]:
    """Translate the published `config.json` and the files beside it to the fields of a `LyricsRefinerConfig`.

    Args:
        published: dictionary of the `config.json`.
        checkpoint: folder or Hub id that holds `ram_tag_list.txt` and, if they differ from the defaults,
            `q2l_config.json` and `bert-base-uncased/config.json`.
        hub_kwargs: arguments of `from_pretrained` (`revision`, `token`, `cache_dir`, ...).

    Raises:
        OSError: the tag list is missing.
    """

    def read(name: str, required: bool = False) -> str:
        # the configuration names files of its own folder as "/q2l_config.json"
        return read_text(checkpoint, name.removeprefix("/"), required, **hub_kwargs)

    ram, detection = published["ram_config"], published["detection_config"]
    tags = read_lines(read(ram["tag_list"], required=True))
    chinese = read_lines(read(ram["tag_list_chinese"]))
    head = json.loads(read(ram["q2l_config"]) or "{}")
    bert = json.loads(read(f"{detection['text_encoder_type']}/config.json") or "{}")
    return {
        "model_type": "lyrics_refiner",
        "architectures": ["LyricsVisualRefiner"],
        "tagger_config": ram_config_dict(ram, head, tags, chinese or None),
        "detector_config": grounding_dino_config_dict(detection, bert),
        "segmenter_config": None,
        "region_feature_type": "detection",
        "max_prompt_tokens": detection["max_text_len"],
        "dtype": published.get("torch_dtype"),
    }


def ram_config_dict(
    ram: dict[str, Any], head: dict[str, Any], tags: list[str], chinese_tags: list[str] | None
) -> dict[str, Any]:
    """Return the fields of a `RamConfig`.

    Args:
        ram: dictionary of the original's Swin settings.
        head: dictionary of its `q2l_config.json`.
        tags: list of tags.
        chinese_tags: list of the tags in Chinese, or `None`.
    """
    image_size = ram.get("image_size", ram.get("image_res"))
    swin = known_fields(SwinConfig, ram) | {"image_size": image_size}
    return known_fields(RamConfig, head) | {
        "model_type": RamConfig.model_type,
        "vision_config": swin,
        "id2label": dict(enumerate(tags)),
        "label2id": {tag: index for index, tag in enumerate(tags)},
        "chinese_labels": chinese_tags,
        "threshold": ram.get("threshold", 0.68),
        "suppressed_label_ids": ram.get("delete_tag_index") or None,
    }


def grounding_dino_config_dict(detection: dict[str, Any], bert: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a `GroundingDinoConfig`.

    Args:
        detection: dictionary of the original's settings.
        bert: dictionary of its text encoder's configuration.
    """
    backbone = known_fields(SwinConfig, detection) | {
        "use_absolute_embeddings": detection["ape"],
        "out_indices": [index + 1 for index in detection["out_indices"]],
        "image_size": detection.get("pretrain_img_size", 224),
        "drop_path_rate": 0.0,
    }
    return {
        "model_type": "grounding-dino",
        "backbone_config": {"model_type": "swin", **backbone},
        "text_config": {"model_type": "bert", **known_fields(BertConfig, bert)},
        "num_queries": detection["num_queries"],
        "encoder_layers": detection["enc_layers"],
        "decoder_layers": detection["dec_layers"],
        "encoder_ffn_dim": detection["dim_feedforward"],
        "decoder_ffn_dim": detection["dim_feedforward"],
        "encoder_attention_heads": detection["nheads"],
        "decoder_attention_heads": detection["nheads"],
        "activation_function": detection["transformer_activation"],
        "d_model": detection["hidden_dim"],
        "dropout": detection["dropout"],
        "num_feature_levels": detection["num_feature_levels"],
        "encoder_n_points": detection["enc_n_points"],
        "decoder_n_points": detection["dec_n_points"],
        "two_stage": True,
        "embedding_init_target": True,
        # with a single layer, Transformers finds nothing to tie
        "decoder_bbox_embed_share": detection["dec_pred_bbox_embed_share"] and detection["dec_layers"] > 1,
        "two_stage_bbox_embed_share": False,
        "positional_embedding_temperature": detection.get("pe_temperatureh", detection.get("pe_temperatureH")),
        "query_dim": detection["query_dim"],
        "max_text_len": detection["max_text_len"],
        "fusion_droppath": detection["fusion_droppath"],
        "fusion_dropout": detection["fusion_dropout"],
        "text_enhancer_dropout": detection["text_dropout"],
    }


def known_fields(config_class: type, values: dict[str, Any], extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the values that a configuration class has fields for.

    Others, such as the generation settings of old releases, are left out.

    Args:
        config_class: configuration class of Transformers or of this package.
        values: dictionary of a foreign configuration.
        extra: further names to keep.
    """
    base = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    known = ({field.name for field in dataclasses.fields(config_class)} - base) | set(extra)
    kept = {name: value for name, value in values.items() if name in known and value is not None}
    return {"model_type": config_class.model_type, **kept}


def read_lines(text: str) -> list[str]:
    """Return the lines of a tag list without surrounding white space; an empty end of the file gives no line."""
    return [line.strip() for line in text.strip().split("\n")] if text.strip() else []


def read_text(checkpoint: str | os.PathLike[str], name: str, required: bool, **hub_kwargs: Any) -> str:
    """Return the text of a checkpoint's file, or an empty string where there is no such file.

    Args:
        checkpoint: folder or Hub id.
        name: name of the file, relative to the checkpoint.
        required: raise an `OSError` where there is no such file.
        hub_kwargs: arguments of `HUB_KWARGS`, and `subfolder`; others are ignored.

    Raises:
        ValueError: the name leads out of the checkpoint, or the file is not text.
        OSError: a required file is missing.
    """
    if not is_inside(name):
        raise ValueError(f"{checkpoint}: config.json names {name!r}, which is no file of this checkpoint.")
    path = find_file(
        checkpoint, name, required, **{key: hub_kwargs[key] for key in (*HUB_KWARGS, "subfolder") if key in hub_kwargs}
    )
    if path is None:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path!r} is no text: {error}") from error
