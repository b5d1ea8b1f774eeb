"""Does a prompt get the same numbers in a batch as alone? Lyrics beside BLIP-2 and InstructBLIP of Transformers.

All three are tiny, random, and built on LLaMA; each prepares its prompts with its own processor. A number is the
largest difference of logits, on the text of a short prompt, between a batch with a longer one and the prompt alone.

    python benchmarks/padding.py
"""

from __future__ import annotations

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)
from transformers.utils import logging

from lyrics.assets import draw_table, random_parts
from lyrics.assets.random_model import build_bert_tokenizer, build_text_tokenizer

QUERIES = 8
PROMPTS = ["What is on the table, and how many of them are there?", "What is it?"]
TOKENS = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}


def build_blip(config_class: type, model_class: type, processor_class: type) -> tuple:
    """A BLIP-2 or an InstructBLIP with the sizes of the micro Lyrics, and its processor."""
    tokenizer, image_processor = build_text_tokenizer(), BlipImageProcessorPil(size={"height": 28, "width": 28})
    readers = [build_bert_tokenizer()] if processor_class is InstructBlipProcessor else []
    processor = processor_class(image_processor, tokenizer, *readers, num_query_tokens=QUERIES)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = config_class(
        vision_config=sizes | {"image_size": 28, "patch_size": 14},
        qformer_config=sizes | {"vocab_size": 1200, "encoder_hidden_size": 64},
        text_config=sizes
        | {"model_type": "llama", "vocab_size": len(tokenizer), "num_key_value_heads": 4}
        | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return model_class(config), processor


def contestants() -> dict[str, tuple]:
    """Model and processor of each family, with weights large enough for every token to make a difference."""
    found = {
        "BLIP-2": build_blip(Blip2Config, Blip2ForConditionalGeneration, Blip2Processor),
        "InstructBLIP": build_blip(InstructBlipConfig, InstructBlipForConditionalGeneration, InstructBlipProcessor),
        "Lyrics": random_parts(),
    }
    for model, _ in found.values():
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.15)
        model.eval()
    return found


def prepare(name: str, processor: object, prompts: list[str], side: str) -> dict:
    """The inputs of prompts about one image, each padded in its family's way: the MQ-Former's text always right."""
    images, options = [draw_table()] * len(prompts), {"padding": True, "return_tensors": "pt"}
    if name == "Lyrics":
        return dict(processor(images, [f"<image>{prompt}" for prompt in prompts], padding_side=side, **options))
    processor.tokenizer.padding_side = side
    return dict(processor(images, prompts, **options))


def difference(name: str, model: torch.nn.Module, processor: object, side: str) -> str:
    """Of the logits of the short prompt's text."""
    logits = []
    for prompts in (PROMPTS, PROMPTS[1:]):
        inputs = prepare(name, processor, prompts, side)
        with torch.no_grad():
            output = model(**inputs).logits[-1]
        is_text = (inputs["attention_mask"][-1] == 1) & (inputs["input_ids"][-1] != model.config.image_token_id)
        logits.append(output[is_text])
    return f"{(logits[0] - logits[1]).abs().max():.1e}"


def same_tokens(name: str, model: torch.nn.Module, processor: object, side: str) -> str:
    """Whether `generate` continues the short prompt with the same tokens."""
    alone, batched = (prepare(name, processor, prompts, side) for prompts in (PROMPTS[1:], PROMPTS))
    try:
        tokens = [model.generate(**inputs, **TOKENS)[-1, -8:] for inputs in (alone, batched)]
    except ValueError:
        return "refused"
    return "same" if torch.equal(*tokens) else "other"


def main() -> None:
    """Print the table."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    models = contestants()
    rows = [
        ("forward, padded left: difference", difference, "left"),
        ("forward, padded right: difference", difference, "right"),
        ("generate, padded left: tokens", same_tokens, "left"),
        ("generate, padded right: tokens", same_tokens, "right"),
    ]
    print(f"| {'':34} | " + " | ".join(f"{name:12}" for name in models) + " |")
    print(f"|{'-' * 36}|" + "|".join("-" * 14 for _ in models) + "|")
    for title, measure, side in rows:
        results = [measure(name, *parts, side) for name, parts in models.items()]
        print(f"| {title:34} | " + " | ".join(f"{result:12}" for result in results) + " |")


if __name__ == "__main__":
    main()
