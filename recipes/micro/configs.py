"""Configurations and tokenizers of the micro model: the ordinary classes in small sizes."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    CLIPConfig,
    LlamaConfig,
    MMGroundingDinoConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ResNetConfig,
    SamConfig,
)

from ...assets.random_model import TEXT_SPECIAL_TOKENS, build_bert_tokenizer, build_sam_config, finish_text_tokenizer
from ...modeling_lyrics import RamConfig
from ...processing_lyrics import LyricsImageProcessor
from ...processing_lyrics.chat_templates import SYSTEM_PROMPT, VICUNA_TEMPLATE
from .world.datasets import boxes_as_text
from .world.names import ANY, all_names
from .world.objects import CHARACTERS, COLORS, SHAPES, SIZES
from .world.questions import ask_many, caption
from .world.scenes import draw_scene


def _read_sizes(part: str) -> dict[str, Any]:
    """Return the sizes of a part of the model."""
    return yaml.safe_load(Path(__file__).with_name("sizes.yaml").read_text())[part]


VISION_IMAGE_SIZE = _read_sizes("clip")["vision_config"]["image_size"]
REFINER_IMAGE_SIZE = 128  # pixels
REGION_WIDTH = 32  # of a region feature without its box
TAGS = (*SHAPES, *CHARACTERS)
MQFORMER = _read_sizes("mqformer")

# Vicuna's template without its system prompt, which would have more tokens than the image has queries.
CHAT_TEMPLATE = VICUNA_TEMPLATE.replace(SYSTEM_PROMPT.replace("'", "\\'"), "")

_COORDINATE = r"[01]\.\d\d"  # one token; the third decimal of a coordinate is another token
_COORDINATES = tuple(f"{value / 100:.2f}" for value in range(101))
_SAMPLE_SCENES = 400  # scenes whose texts the vocabularies are learned from
_TEXT_VOCAB_SIZE = 1400
_MIN_COUNT = 6  # of a word in these texts that is one token


@cache
def _sample_texts() -> tuple[str, ...]:
    """Return captions and dialogues of some training scenes."""
    texts = []
    for number in range(_SAMPLE_SCENES):
        scene, random = draw_scene("train", number), np.random.default_rng(number)
        texts += [caption(scene, random) for _ in range(4)]
        for question in ask_many(scene, 12, random):
            messages = boxes_as_text(question.messages())
            texts.append("\n".join("".join(block["text"] for block in one["content"]) for one in messages))
    return tuple(texts)


def vocabulary_words() -> list[str]:
    """Return all lower-case words of the world, and all coordinates with two decimals."""
    words = Counter(word.lower() for text in _sample_texts() for word in re.findall(r"[A-Za-z]+", text))
    known = {word.lower() for word in (*SHAPES, *COLORS, *SIZES, ANY)}
    return [*sorted({word for word in words if len(word) > 1 and words[word] >= _MIN_COUNT} | known), *_COORDINATES]


def build_micro_bert_tokenizer(*extra: str) -> PreTrainedTokenizerFast:
    """Build a BERT tokenizer that knows the words of the world and spells all others.

    Args:
        extra: additional special tokens.
    """
    return build_bert_tokenizer(*extra, words=vocabulary_words(), isolate=_COORDINATE)


def build_detector_tokenizer() -> PreTrainedTokenizerFast:
    """Build a BERT tokenizer that knows the tags and spells all other words."""
    return build_bert_tokenizer(words=sorted(SHAPES))


def build_micro_text_tokenizer() -> PreTrainedTokenizerFast:
    """Build a byte-level BPE tokenizer, trained on texts of the world.

    A coordinate such as `0.123` has two tokens. A name such as `small red ring` is one token: an object of an image is
    one vector, and the two can be compared directly.
    """
    tokenizer = Tokenizer(models.BPE())
    pieces = rf"{_COORDINATE}|, (?=\d)|\d| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\s"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=_TEXT_VOCAB_SIZE,
        special_tokens=TEXT_SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    prompts = [" USER: ? ASSISTANT: "] * 50
    tokenizer.train_from_iterator([*_sample_texts(), *_COORDINATES * 20, *prompts], trainer)
    tokenizer.add_tokens([AddedToken(name, single_word=True, normalized=False) for name in all_names()])
    return finish_text_tokenizer(tokenizer, max_length=1024)


def build_image_processor(image_size: int = VISION_IMAGE_SIZE) -> Any:
    """Build the image processor of a vision encoder that sees `image_size` pixels across and down."""
    return LyricsImageProcessor(size={"height": image_size, "width": image_size})


def clip_config(tokenizer: PreTrainedTokenizerBase, **vision: Any) -> CLIPConfig:
    """Return the configuration of the vision encoder and of the text encoder that it is trained with.

    Args:
        tokenizer: tokenizer of the captions.
        vision: fields of the vision encoder's configuration that replace those of the recipe.
    """
    sizes, ids = _read_sizes("clip"), {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    sizes["vision_config"] |= vision
    sizes["text_config"] |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **ids}
    return CLIPConfig(**sizes)


def backbone_config() -> ResNetConfig:
    """Return the configuration of the detector's image encoder."""
    return ResNetConfig(**_read_sizes("backbone"))


def tagger_config() -> RamConfig:
    """Return the configuration of RAM."""
    numbers = {tag: number for number, tag in enumerate(TAGS)}
    return RamConfig(**_read_sizes("tagger"), id2label=dict(enumerate(TAGS)), label2id=numbers)


def detector_config(tokenizer: PreTrainedTokenizerBase) -> MMGroundingDinoConfig:
    """Return the configuration of MM-Grounding-DINO, which initializes its scores low, unlike Grounding DINO."""
    sizes = _read_sizes("detector")
    text_config = BertConfig(vocab_size=len(tokenizer), **sizes.pop("text_config"))
    return MMGroundingDinoConfig(backbone_config=backbone_config(), text_config=text_config, **sizes)


def segmenter_config() -> SamConfig:
    """Return the configuration of SAM."""
    config = build_sam_config(hidden_size=64, num_hidden_layers=3)
    vision_config: Any = config.vision_config
    vision_config.initializer_range = 0.02  # the default, 1e-10, is meant for weights that are loaded
    # Scale of the frequencies of position embeddings. It is 1 in the original SAM. With Transformers' default the
    # embeddings of neighboring positions would be unrelated.
    vision_config.scale = 1.0
    return config


def language_model_config(tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """Return the configuration of the language model."""
    ids: Any = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return LlamaConfig(vocab_size=len(tokenizer), **_read_sizes("language_model"), **ids)
