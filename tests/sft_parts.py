"""A second-stage model that is smaller than the micro model, and conversations for it."""

import torch
from transformers import LlamaConfig

from lyrics.assets.random_model import build_text_tokenizer
from lyrics.modeling_lyrics import LyricsConfig, LyricsForConditionalGeneration

from .pretraining_parts import build_config as build_stage_1_config
from .pretraining_parts import build_objects, build_processor, build_row

__all__ = ["build_chat", "build_chats", "build_model", "build_processor", "say"]

SYSTEM = {"role": "system", "content": "Hi."}  # the template's own is long


def build_text_config(**changes):
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"vocab_size": len(build_text_tokenizer()), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return LlamaConfig(**sizes, **tokens, max_position_embeddings=1024, **changes)


def build_model(seed=0, std=None):
    """Build a model; with `std`, its weights are large enough for every input to change the output."""
    torch.manual_seed(seed)
    stage_1 = build_stage_1_config()
    processor = build_processor()
    config = LyricsConfig(
        vision_config=stage_1.vision_config,
        mqformer_config=stage_1.mqformer_config,
        text_config=build_text_config(),
        image_token_id=processor.image_token_id,
    )
    model = LyricsForConditionalGeneration(config)
    if std is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=std)
    return model.eval()


def say(role, *parts):
    """Build a message; `None` stands for an image, a list for a box."""
    blocks = []
    for part in parts:
        if part is None:
            blocks.append({"type": "image"})
        else:
            blocks.append({"type": "text", "text": part} if isinstance(part, str) else {"type": "box", "box": part})
    return {"role": role, "content": blocks}


def build_chat(seed, pictures=1, turns=1):
    """Build a conversation that differs from those of other seeds, with images of noise and their objects."""
    messages = [SYSTEM]
    for turn in range(turns):
        places = [None] * pictures if turn == 0 else []
        answer = f"It is {(seed * 7 + turn) % 10}."
        messages += [say("user", *places, f"What is {seed}.{turn}?"), say("assistant", answer)]
    return {
        "images": [build_row(100 * seed + number)["image"] for number in range(pictures)],
        "messages": messages,
        "visual_objects": [build_objects(100 * seed + number, (seed + number) % 4) for number in range(pictures)],
    }


def build_chats(count, first=0):
    """Build conversations about one image, two images and none, in turn."""
    return [build_chat(seed, pictures=(1, 2, 0)[seed % 3], turns=1 + seed % 2) for seed in range(first, first + count)]
