"""Loading of the published weights, `IDEA-CCNL/Ziya-Visual-Lyrics-14B`.

Their `config.json` has the type `"blip-2"`, with `ram_config` and `detection_config`. Their shards hold the vision
encoder, the Q-Former, the language model, the tagger and the detector together. Importing this module registers the
layout with AutoConfig and with Transformers' loader. Plain BLIP-2 checkpoints stay BLIP-2.
"""

from __future__ import annotations

import os
from typing import Any

from transformers import AutoConfig
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming
from transformers.models.blip_2 import Blip2Config as TransformersBlip2Config

from .configuration_lyrics import LyricsConfig
from .configuration_lyrics_pretraining import LyricsPreTrainingConfig
from .published_config import (
    APPENDED_TOKENS,
    is_pretraining_config,
    is_published_config,
    read_text,
    translate_model_config,
    translate_pretraining_config,
)
from .weight_tables import GROUNDING_DINO, QFORMER, RAM, AppendRows, HalveAndRepeat

_BERT_IDS = {"[CLS]": 101, "[MASK]": 103}

# Where the detector's tokenizer may lie: both hold bert-base-uncased's vocabulary.
DETECTOR_TOKENIZER_FOLDERS = ("bert-base-uncased", "vicuna-13b_processor/qformer_tokenizer")

# Weights of the published shards that a class does not load, and the reason.
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


def find_tokenizer_folder(checkpoint: str | os.PathLike[str], subfolder: str = "", **hub_kwargs: Any) -> str:
    """Return the folder of the detector's tokenizer: that of the weights, or one below it in the published layout.

    Args:
        checkpoint: folder or Hub id.
        subfolder: folder of the weights inside the checkpoint.
        hub_kwargs: arguments of `HUB_KWARGS`.

    Raises:
        OSError: there is no tokenizer; the message names the folders that were searched.
    """
    folders = (subfolder, *(os.path.join(subfolder, name) for name in DETECTOR_TOKENIZER_FOLDERS))
    for folder in folders:
        if read_text(checkpoint, "tokenizer_config.json", False, **hub_kwargs, subfolder=folder):
            return folder
    places = ", ".join(folder or "." for folder in folders)
    raise OSError(f"{checkpoint} holds no tokenizer for the detector; searched {places} for tokenizer_config.json.")


class Blip2Config(TransformersBlip2Config):
    """Configuration class of `"blip-2"`: Transformers' own, or one of this package for the published layout.

    The auto classes look models up by the name of the class, so that it must be this one.
    """

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration of this package for the published layout, else Transformers' `Blip2Config`."""
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
    for name in ("LyricsForPreTraining", "LyricsForImageTextRetrieval"):
        register_checkpoint_conversion_mapping(name, _pretraining_transforms(), overwrite=True)


def _pretraining_transforms() -> list[Any]:
    """Return the conversions of the published first stage; weights of another shape in the paper are adapted."""
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
