"""Step 3: the language model, on dialogues about scenes that are told to it in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaForCausalLM, set_seed

from ...modeling_lyrics import LyricsForConditionalGeneration
from ...processing_lyrics import LyricsProcessor
from ...trainers.sft_config import LyricsSFTConfig
from ...trainers.sft_trainer import LyricsSFTTrainer
from .muon import use_muon
from .parts import (
    CHAT_TEMPLATE,
    build_micro_bert_tokenizer,
    build_micro_text_tokenizer,
    clip_config,
    language_model_config,
    mqformer_config,
)
from .questions import all_words
from .rows import WordRows
from .training import newest_checkpoint
from .vision import build_image_processor


def train_language_model(
    arguments: LyricsSFTConfig, scenes: int, dialogues: int, eval_scenes: int, lookups: int, out: Path
) -> None:
    """Train and write a causal language model with its tokenizer.

    The second stage's trainer does it, so that the model learns the chat template that it will be asked in; vision
    encoder and MQ-Former are there, and see nothing.

    Args:
        arguments: of the run.
        scenes, dialogues: to train on, and how many about each.
        eval_scenes: with a dialogue each.
        lookups: how many of the first dialogues only look up what was told.
        out: a folder.
    """
    set_seed(arguments.seed)
    tokenizer, reader = build_micro_text_tokenizer(), build_micro_bert_tokenizer()
    language_model: Any = LlamaForCausalLM(language_model_config(tokenizer))
    compose_embeddings(language_model, tokenizer)
    vision_config: Any = clip_config(reader).vision_config
    queries = mqformer_config(len(reader))
    processor = LyricsProcessor(
        build_image_processor(),
        tokenizer,
        reader,
        chat_template=CHAT_TEMPLATE,
        num_query_tokens=queries.num_queries,
        mqformer_text="none",
    )
    model = LyricsForConditionalGeneration.from_parts(
        CLIPVisionModel(CLIPVisionConfig(**vision_config.to_dict())),
        queries,
        language_model,
        image_token_id=processor.image_token_id,
    )
    train_rows, validation_rows = WordRows("train", scenes, dialogues, lookups), WordRows("validation", eval_scenes)
    trainer = LyricsSFTTrainer(model, arguments, train_rows, validation_rows, processor)
    use_muon(trainer)
    trainer.train(resume_from_checkpoint=newest_checkpoint(arguments))
    trainer.evaluate()
    trainer.save_state()
    language_model.save_pretrained(out)
    tokenizer.save_pretrained(out)


@torch.no_grad()
def compose_embeddings(language_model: Any, tokenizer: Any) -> None:
    """Let an object's word begin as the sum of what it is made of: words that share a color share what says so.

    Args:
        language_model: whose embeddings, `(vocab_size, width)`, change; their variance does not.
        tokenizer: with `all_words`.
    """
    table = language_model.get_input_embeddings().weight
    for word in all_words():
        parts = tokenizer(" " + word.replace("-", " "), add_special_tokens=False)["input_ids"]
        table[tokenizer.convert_tokens_to_ids(word)] = table[parts].sum(dim=0) / len(parts) ** 0.5
