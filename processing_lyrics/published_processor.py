"""The processor of the published layout: its tokenizers and image settings lie in `vicuna-13b_processor/`."""

from __future__ import annotations

import json
import os
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig
from transformers.utils.hub import cached_file

from .chat_templates import PUBLISHED_TEMPLATE
from .processor_checks import find_file

FOLDER = "vicuna-13b_processor"
MQFORMER_FOLDER = f"{FOLDER}/qformer_tokenizer"
_IMAGE_SETTINGS = ("size", "image_mean", "image_std", "resample", "rescale_factor")


def is_published(checkpoint: str | os.PathLike, **hub_kwargs: Any) -> bool:
    """Whether a directory or Hub id is in the published layout."""
    if find_file(checkpoint, f"{FOLDER}/preprocessor_config.json", **hub_kwargs) is None:
        return False
    config, _ = PreTrainedConfig.get_config_dict(checkpoint, **hub_kwargs)
    return {"ram_config", "detection_config"} <= config.keys()


def load_parts(checkpoint: str | os.PathLike, **hub_kwargs: Any) -> dict[str, Any]:
    """What `LyricsProcessor` is made of, image settings still as a dictionary.

    Raises:
        ValueError: when the tokenizer has more tokens than the language model.
    """
    config, _ = PreTrainedConfig.get_config_dict(checkpoint, **hub_kwargs)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, subfolder=FOLDER, **hub_kwargs)
    vocab_size, qformer = config["text_config"]["vocab_size"], config["qformer_config"]
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"{checkpoint}: the tokenizer has {len(tokenizer)} tokens and the language model {vocab_size}; they do not "
            "belong together."
        )
    # the placeholder takes the first id after the language model's, and a tokenizer counts on from its own
    tokenizer.add_tokens([f"<unused_{index}>" for index in range(len(tokenizer), vocab_size)])
    settings = cached_file(checkpoint, f"{FOLDER}/preprocessor_config.json", **hub_kwargs)
    with open(str(settings), encoding="utf-8") as file:
        image_settings = json.load(file)
    return {
        "image_settings": {name: image_settings[name] for name in _IMAGE_SETTINGS if name in image_settings},
        "tokenizer": tokenizer,
        "mqformer_tokenizer": AutoTokenizer.from_pretrained(checkpoint, subfolder=MQFORMER_FOLDER, **hub_kwargs),
        "chat_template": PUBLISHED_TEMPLATE,
        "num_query_tokens": qformer["num_vit_query_tokens"] + qformer["num_dino_query_tokens"],
        "region_feature_size": config["detection_config"]["hidden_dim"] + 4,
        "mqformer_text": "instruction",
    }
