"""The layout of the published weights, `IDEA-CCNL/Ziya-Visual-Lyrics-14B`, and how it becomes ours while loading.

Its `config.json` calls itself `"blip-2"` and carries `ram_config` and `detection_config`; its shards hold vision
encoder, Q-Former, language model, tagger and detector under one roof. Importing this module teaches AutoConfig and
Transformers' loader to read it. Plain BLIP-2 checkpoints stay BLIP-2.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, BertConfig, PreTrainedConfig
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming
from transformers.models.blip_2 import Blip2Config as TransformersBlip2Config
from transformers.models.blip_2 import Blip2VisionConfig
from transformers.models.swin import SwinConfig

from .adapted_weights import AppendRows, HalveAndRepeat
from .checkpoint_files import find_file, is_inside
from .configuration_base import naming_what_is_missing
from .configuration_lyrics import LyricsConfig, LyricsMQFormerConfig, RamConfig
from .configuration_lyrics_pretraining import LyricsPreTrainingConfig
from .weight_tables import GROUNDING_DINO, QFORMER, RAM

HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")

PUBLISHED_PRETRAINING_CLASS = "LyricsQFromerForPretrain"  # so spelt there

# Tokens that the published first stage lacks, and the token whose weights each starts from; appended in this order.
APPENDED_TOKENS = {"[BOS]": "[CLS]", "[MLM]": "[MASK]"}
_BERT_IDS = {"[CLS]": 101, "[MASK]": 103}

# Where the detector's tokenizer may lie: both hold bert-base-uncased's vocabulary.
DETECTOR_TOKENIZER_FOLDERS = ("bert-base-uncased", "vicuna-13b_processor/qformer_tokenizer")

# Weights that a class does not take from the published shards, and why.
DROPPED_BY_MODEL = {
    r"^ram\.": "the tagger, loaded by LyricsVisualRefiner",
    r"^grounding_dino\.": "the detector, loaded by LyricsVisualRefiner",
    r"rotary_emb\.inv_freq$": "a buffer that is computed",
    r"embeddings\.position_ids$": "a buffer that is computed",
    r"^qformer\.cls\.predictions\.decoder\.bias$": "the same tensor as `qformer.cls.predictions.bias`",
}
DROPPED_BY_REFINER = {
    r"^(vision_model|qformer|query_tokens|language_projection|language_model)(\.|$)": "loaded by LyricsModel",
    **dict.fromkeys(RAM.dropped + GROUNDING_DINO.dropped, "not used in inference, or computed; see weight_tables.py"),
}


def is_published_config(config: dict[str, Any]) -> bool:
    """Whether a `config.json` is in the published layout, and not that of a plain BLIP-2."""
    return config.get("model_type") == "blip-2" and {"ram_config", "detection_config"} <= config.keys()


@naming_what_is_missing
def translate_model_config(published: dict[str, Any]) -> dict[str, Any]:
    """The published `config.json` as the fields of a `LyricsConfig`."""
    qformer, text = published["qformer_config"], published["text_config"]
    mqformer = _known_fields(LyricsMQFormerConfig, qformer) | {
        "num_visual_queries": qformer["num_vit_query_tokens"],
        "num_grounding_queries": qformer["num_dino_query_tokens"],
        "region_hidden_size": published["detection_config"]["hidden_dim"] + 4,  # its own field has a wrong default
        "normalize_vision_features": False,
    }
    return {
        "model_type": LyricsConfig.model_type,
        "architectures": ["LyricsForConditionalGeneration"],
        "vision_config": _known_fields(Blip2VisionConfig, published["vision_config"]),
        "mqformer_config": mqformer,
        "text_config": _known_fields(CONFIG_MAPPING[text["model_type"]], text, extra=("rope_theta", "rope_scaling")),
        "vision_feature_layer": -1,
        "image_token_id": text["vocab_size"],  # the published tokenizer has no placeholder: the first id after it
        "dtype": published.get("torch_dtype"),
    }


def is_pretraining_config(published: dict[str, Any]) -> bool:
    """Whether a `config.json` in the published layout is that of a first-stage model, which has no language model."""
    return published.get("architectures") == [PUBLISHED_PRETRAINING_CLASS]


@naming_what_is_missing
def translate_pretraining_config(published: dict[str, Any]) -> dict[str, Any]:
    """The published first-stage `config.json` as the fields of a `LyricsPreTrainingConfig`."""
    translated = translate_model_config(published)
    mqformer = translated["mqformer_config"]
    return {
        "model_type": LyricsPreTrainingConfig.model_type,
        "architectures": ["LyricsForPreTraining"],
        "vision_config": translated["vision_config"],
        "mqformer_config": mqformer | {"vocab_size": mqformer["vocab_size"] + len(APPENDED_TOKENS)},
        "vision_feature_layer": translated["vision_feature_layer"],
        "projection_size": published["image_text_hidden_size"],
        "tie_word_embeddings": False,  # in its class, but not in what it loads
        "dtype": translated["dtype"],
    }


@naming_what_is_missing
def translate_refiner_config(
    published: dict[str, Any], checkpoint: str | os.PathLike, **hub_kwargs: Any
) -> dict[str, Any]:
    """The published `config.json` and the files beside it as the fields of a `LyricsRefinerConfig`.

    Args:
        checkpoint: directory or Hub id that holds `ram_tag_list.txt` and, if they differ from the defaults,
            `q2l_config.json` and `bert-base-uncased/config.json`.
        hub_kwargs: as for `from_pretrained` (`revision`, `token`, `cache_dir`, ...).

    Raises:
        OSError: when the tag list is missing.
    """

    def read(name: str, required: bool = False) -> str:
        # the configuration names files of its own folder as "/q2l_config.json"
        return _read_text(checkpoint, name.removeprefix("/"), required, **hub_kwargs)

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
    """Fields of a `RamConfig` from the original's Swin settings, its `q2l_config.json` and its tag lists."""
    image_size = ram.get("image_size", ram.get("image_res"))
    swin = _known_fields(SwinConfig, ram) | {"image_size": image_size}
    return _known_fields(RamConfig, head) | {
        "model_type": RamConfig.model_type,
        "vision_config": swin,
        "id2label": dict(enumerate(tags)),
        "label2id": {tag: index for index, tag in enumerate(tags)},
        "chinese_labels": chinese_tags,
        "threshold": ram.get("threshold", 0.68),
        "suppressed_label_ids": ram.get("delete_tag_index") or None,
    }


def grounding_dino_config_dict(detection: dict[str, Any], bert: dict[str, Any]) -> dict[str, Any]:
    """Fields of a `GroundingDinoConfig` from the original's settings and its text encoder's configuration."""
    backbone = _known_fields(SwinConfig, detection) | {
        "use_absolute_embeddings": detection["ape"],
        "out_indices": [index + 1 for index in detection["out_indices"]],
        "image_size": detection.get("pretrain_img_size", 224),
        "drop_path_rate": 0.0,
    }
    return {
        "model_type": "grounding-dino",
        "backbone_config": {"model_type": "swin", **backbone},
        "text_config": {"model_type": "bert", **_known_fields(BertConfig, bert)},
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
        # one layer shares with nobody, and Transformers finds nothing to tie then
        "decoder_bbox_embed_share": detection["dec_pred_bbox_embed_share"] and detection["dec_layers"] > 1,
        "two_stage_bbox_embed_share": False,
        "positional_embedding_temperature": detection.get("pe_temperatureh", detection.get("pe_temperatureH")),
        "query_dim": detection["query_dim"],
        "max_text_len": detection["max_text_len"],
        "fusion_droppath": detection["fusion_droppath"],
        "fusion_dropout": detection["fusion_dropout"],
        "text_enhancer_dropout": detection["text_dropout"],
    }


def find_tokenizer_folder(checkpoint: str | os.PathLike, subfolder: str = "", **hub_kwargs: Any) -> str:
    """The folder of the detector's tokenizer: beside the weights in our layout, below them in the published one.

    Raises:
        OSError: naming the folders that were searched.
    """
    folders = (subfolder, *(os.path.join(subfolder, name) for name in DETECTOR_TOKENIZER_FOLDERS))
    for folder in folders:
        if _read_text(checkpoint, "tokenizer_config.json", False, **hub_kwargs, subfolder=folder):
            return folder
    places = ", ".join(folder or "." for folder in folders)
    raise OSError(f"{checkpoint} holds no tokenizer for the detector; searched {places} for tokenizer_config.json.")


def _known_fields(config_class: type, values: dict[str, Any], extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """`values` without what `config_class` has no field for, such as the generation settings of old releases."""
    base = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    known = ({field.name for field in dataclasses.fields(config_class)} - base) | set(extra)
    kept = {name: value for name, value in values.items() if name in known and value is not None}
    return {"model_type": config_class.model_type, **kept}


def read_lines(text: str) -> list[str]:
    """The lines of a tag list, without white space around them and without the empty end of the file."""
    return [line.strip() for line in text.strip().split("\n")] if text.strip() else []


def _read_text(checkpoint: str | os.PathLike, name: str, required: bool, **hub_kwargs: Any) -> str:
    if not is_inside(name):
        raise ValueError(f"{checkpoint}: config.json names {name!r}, which is no file of this checkpoint.")
    path = find_file(checkpoint, name, required, **{key: hub_kwargs[key] for key in HUB_KWARGS if key in hub_kwargs})
    if path is None:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path!r} is no text: {error}") from error


class Blip2Config(TransformersBlip2Config):
    """What AutoConfig takes for `"blip-2"`: Transformers' own class, or a `LyricsConfig` for the published layout.

    It must bear this name, since the auto classes look models up by it.
    """

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A configuration of this package for the published layout, else Transformers' `Blip2Config`."""
        if is_published_config(config_dict):
            if is_pretraining_config(config_dict):
                return LyricsPreTrainingConfig.from_dict(translate_pretraining_config(config_dict), **kwargs)
            return LyricsConfig.from_dict(translate_model_config(config_dict), **kwargs)
        return TransformersBlip2Config.from_dict(config_dict, **kwargs)


def register() -> None:
    """Register the dispatch of `"blip-2"` configurations and the conversions of the published weights."""
    AutoConfig.register("blip-2", Blip2Config, exist_ok=True)
    model_renames: list[Any] = [
        WeightRenaming(r"^qformer\.", "mqformer."),
        WeightRenaming(r"^query_tokens$", "mqformer.query_tokens"),
        WeightRenaming(r"^language_model\.model\.", "language_model."),
        WeightRenaming(r"^language_model\.lm_head\.", "lm_head."),
    ]
    for name in ("LyricsModel", "LyricsForConditionalGeneration"):
        register_checkpoint_conversion_mapping(name, model_renames, overwrite=True)
    register_checkpoint_conversion_mapping("LyricsMQFormerModel", QFORMER.transforms(), overwrite=True)
    register_checkpoint_conversion_mapping("RamForImageTagging", RAM.transforms(), overwrite=True)
    refiner: list[Any] = [
        WeightRenaming(r"^ram\.", "tagger."),
        WeightRenaming(r"^grounding_dino\.", "detector."),
        *GROUNDING_DINO.transforms(scope="detector"),
    ]
    register_checkpoint_conversion_mapping("LyricsVisualRefiner", refiner, overwrite=True)
    register_checkpoint_conversion_mapping("LyricsForPreTraining", _pretraining_transforms(), overwrite=True)


def _pretraining_transforms() -> list[Any]:
    """Published first-stage weights -> `LyricsForPreTraining`; what the paper shapes otherwise is adapted."""
    head = r"^qformer\.cls\.predictions\."
    words = r"qformer\.bert\.embeddings\.word_embeddings\.weight$"
    rows = AppendRows({token: _BERT_IDS[source] for token, source in APPENDED_TOKENS.items()})
    return [
        WeightRenaming(rf"^(?!{words})qformer\.bert\.", "model.mqformer."),
        WeightRenaming(r"^query_tokens$", "model.mqformer.query_tokens"),
        WeightRenaming(r"^temp$", "contrastive.temperature"),
        WeightRenaming(r"^itm_head\.", "matching.head."),
        WeightRenaming(r"^(vision|text)_proj\.bias$", r"contrastive.\1_projection.bias"),
        WeightRenaming(head + r"transform\.dense\.", "lm_head.dense."),
        WeightRenaming(head + r"transform\.LayerNorm\.", "lm_head.layer_norm."),
        *(
            WeightConverter(rf"^{name}_proj\.weight$", f"contrastive.{name}_projection.weight", [HalveAndRepeat()])
            for name in ("vision", "text")
        ),
        WeightConverter("^" + words, "model.mqformer.embeddings.word_embeddings.weight", [rows]),
        WeightConverter(head + r"decoder\.weight$", "lm_head.decoder.weight", [rows]),
        WeightConverter(head + r"bias$", "lm_head.decoder.bias", [rows]),
    ]


register()
