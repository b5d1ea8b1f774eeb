"""Complete Lyrics model of a few million parameters with random weights.

Its answers make no sense. It exists so that all code can run in seconds on a laptop.
"""

from __future__ import annotations

import os
import string
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    CLIPVisionConfig,
    GroundingDinoConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    SamConfig,
    SwinConfig,
)

from ..modeling_lyrics import (
    LyricsConfig,
    LyricsForConditionalGeneration,
    LyricsMQFormerConfig,
    LyricsRefinerConfig,
    LyricsVisualRefiner,
    RamConfig,
)
from ..processing_lyrics import LyricsImageProcessor, LyricsProcessor
from ..utils.model_folder import write_model

IMAGE_SIZE = 64
REGION_WIDTH = 32

TAGS = (
    "apple", "ball", "bicycle", "bird", "boat", "book", "bottle", "box", "bus", "car", "cat", "chair", "clock", "cloud",
    "cup", "desk", "dog", "door", "fire truck", "flower", "fork", "grass", "hat", "horse", "house", "ice cream", "kite",
    "lamp", "moon", "mountain", "person", "plate", "river", "road", "sea", "shirt", "sky", "table", "tree", "window",
)  # fmt: skip

# BERT's own numbers: Grounding DINO finds [CLS], [SEP], the full stop and the question mark by them.
_BERT_SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
_BERT_CHARACTERS = 999  # number of the first character
TEXT_SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]
STAGE_1_TOKENS = ("[BOS]", "[DEC]", "[MLM]")


def build_bert_tokenizer(*extra: str, words: Sequence[str] = (), isolate: str | None = None) -> PreTrainedTokenizerFast:
    """Build a BERT tokenizer that spells words: every ASCII character, at the start of a word or inside, is a token.

    Args:
        extra: additional special tokens, which get the last numbers.
        words: words with a token of their own. They get numbers that BERT leaves unused.
        isolate: regular expression. Its matches are split off before words are.

    Raises:
        ValueError: there are more words than unused numbers.
    """
    characters = [chr(code) for code in range(33, 127) if chr(code) not in string.ascii_uppercase]
    inside = [f"##{character}" for character in string.ascii_lowercase + string.digits]
    tokens = dict(_BERT_SPECIAL) | dict(enumerate(characters + inside, start=_BERT_CHARACTERS))
    unused = [index for index in range(_BERT_CHARACTERS) if index not in tokens]
    if len(words) > len(unused):
        raise ValueError(f"{len(words)} words are too many: the vocabulary has {len(unused)} unused tokens.")
    tokens |= dict(zip(unused, words, strict=False))
    vocabulary = {tokens.get(index, f"[unused{index}]"): index for index in range(max(tokens) + 1)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if isolate is not None:
        pieces = Regex(rf"{isolate}|\w+|[^\w\s]")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, "removed", invert=True)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        extra_special_tokens=list(extra),
        model_max_length=512,
    )


def build_text_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer whose tokens are bytes: it encodes any text and needs no training."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(TEXT_SPECIAL_TOKENS + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return finish_text_tokenizer(tokenizer, max_length=2048)


def finish_text_tokenizer(tokenizer: Tokenizer, max_length: int) -> PreTrainedTokenizerFast:
    """Add decoder and special tokens of LLaMA to a byte-level tokenizer.

    Args:
        tokenizer: tokenizer whose first tokens are `TEXT_SPECIAL_TOKENS`.
        max_length: maximum number of tokens of a model's input.
    """
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=max_length
    )


def build_sam_config(hidden_size: int, num_hidden_layers: int) -> SamConfig:
    """Return the configuration of a small SAM for images of 128 pixels, whose last layer attends globally.

    Args:
        hidden_size: width of the image encoder.
        num_hidden_layers: number of layers of the image encoder.
    """
    return SamConfig(
        vision_config={
            "hidden_size": hidden_size,
            "output_channels": REGION_WIDTH,
            "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": 4,
            "image_size": 128,
            "patch_size": 8,
            "window_size": 4,
            "global_attn_indexes": [num_hidden_layers - 1],
            "num_pos_feats": REGION_WIDTH // 2,
            "mlp_dim": 2 * hidden_size,
        },
        mask_decoder_config={
            "hidden_size": REGION_WIDTH,
            "mlp_dim": 64,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": 32,
            "layer_norm_eps": 1e-5,
        },
        prompt_encoder_config={"hidden_size": REGION_WIDTH, "image_size": 128, "patch_size": 8},
    )


def micro_refiner_config(vocab_size: int) -> LyricsRefinerConfig:
    """Return the configuration of RAM, Grounding DINO and SAM with about a million parameters in total.

    Args:
        vocab_size: number of tokens of the detector's tokenizer.
    """
    tagger = RamConfig(
        vision_config=SwinConfig(
            image_size=96, embed_dim=16, depths=[2, 2, 2, 2], num_heads=[2, 2, 4, 4], window_size=3
        ).to_dict(),
        tag_embedding_size=64,
        hidden_size=48,
        intermediate_size=96,
        id2label=dict(enumerate(TAGS)),
        label2id={tag: index for index, tag in enumerate(TAGS)},
        threshold=0.5,
    )
    detector = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "image_size": 128,
            "embed_dim": 16,
            "depths": [2, 2, 2, 2],
            "num_heads": [2, 2, 4, 4],
            "window_size": 4,
            "out_indices": [2, 3, 4],
        },
        text_config=BertConfig(
            vocab_size=vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
        ),
        num_queries=40,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        d_model=32,
        two_stage=True,
        embedding_init_target=True,
    )
    segmenter = build_sam_config(hidden_size=48, num_hidden_layers=2)
    return LyricsRefinerConfig(
        tagger_config=tagger.to_dict(),
        detector_config=detector.to_dict(),
        segmenter_config=segmenter.to_dict(),
        detector_shortest_edge=128,
        detector_longest_edge=256,
        max_regions=16,
    )


def micro_config(
    text_vocab_size: int, mqformer_vocab_size: int, image_token_id: int, region_feature_size: int = REGION_WIDTH + 4
) -> LyricsConfig:
    """Return the configuration of CLIP, MQ-Former and LLaMA with about two million parameters in total.

    Args:
        text_vocab_size: number of tokens of the language model.
        mqformer_vocab_size: number of tokens of the MQ-Former.
        image_token_id: token that image features replace.
        region_feature_size: width of the region features.
    """
    return LyricsConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=8,
        ).to_dict(),
        mqformer_config=LyricsMQFormerConfig(
            vocab_size=mqformer_vocab_size,
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=128,
            num_visual_queries=8,
            num_grounding_queries=16,
            region_hidden_size=region_feature_size,
        ).to_dict(),
        text_config=LlamaConfig(
            vocab_size=text_vocab_size,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ).to_dict(),
        image_token_id=image_token_id,
    )


def random_parts(
    seed: int = 0, region_feature_size: int | None = None
) -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """Build a micro model with random weights, and its processor.

    Args:
        seed: random seed of the weights.
        region_feature_size: width of region features. If given, the processor has no refiner.
    """
    tokenizer, mqformer_tokenizer = build_text_tokenizer(), build_bert_tokenizer(*STAGE_1_TOKENS)
    detector_tokenizer = build_bert_tokenizer()
    text_vocab_size = len(tokenizer)
    width = REGION_WIDTH + 4 if region_feature_size is None else region_feature_size
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        refiner = LyricsVisualRefiner(micro_refiner_config(len(detector_tokenizer)))
        config = micro_config(text_vocab_size, len(mqformer_tokenizer), text_vocab_size, width)
        model = LyricsForConditionalGeneration(config).eval()
    refiner.tokenizer = detector_tokenizer
    processor = LyricsProcessor(
        LyricsImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        tokenizer,
        mqformer_tokenizer,
        num_query_tokens=24,
        region_feature_size=width,
    )
    return model, processor if region_feature_size is not None else processor.attach_refiner(refiner)


def write_random_checkpoint(out: str | os.PathLike, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
    """Write a complete micro checkpoint with random weights: model, processor and refiner.

    The folder holds the whole checkpoint, or is not taken for one (`write_model`).

    Args:
        out: folder, created if missing.
        seed: random seed of the weights. Equal seeds give equal files.
        dtype: data type of the weights.
    """
    model: Any
    model, processor = random_parts(seed)
    processor.to(dtype=dtype)
    with write_model(out) as folder:
        model.to(dtype).save_pretrained(folder)
        processor.save_pretrained(folder)
