"""A step of `LyricsSFTTrainer` beside one of TRL's own `SFTTrainer` on Transformers' LLaVA.

Both have the same language model, vision encoder, image tokens, conversations, LoRA on q, k, v, and a connector that is
trained in full: an MQ-Former of two kinds of queries here, two linear layers there. A step is forward, backward, the
optimizer's step and setting gradients to zero; from rows to a batch is timed apart. Memory is what a step keeps for its
backward pass, or on a GPU its peak above what was there. `--match` gives both the head of TRL at every position, which
is what TRL does on a CPU.

    python benchmarks/stage2.py                                # laptop size
    python benchmarks/stage2.py --count                        # operations alone, which no other program disturbs
    python benchmarks/stage2.py --size paper --device cuda     # Llama of 7 billion, ViT-L/14 and BERT-base, bfloat16
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measuring import Row, Timing, add_json_option, count_flop, kept_bytes, name_machine, report, take_turns
from PIL import Image
from stage1 import WORDS, build_tokenizer
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from lyrics.assets import random_parts
from lyrics.assets.random_model import build_text_tokenizer
from lyrics.modeling_lyrics import LyricsConfig, LyricsForConditionalGeneration, LyricsMQFormerConfig
from lyrics.processing_lyrics import LyricsImageProcessor, LyricsProcessor, VisualObjects
from lyrics.trainers import LyricsSFTConfig, LyricsSFTTrainer, add_stage_1_tokens
from lyrics.trainers.common.trainable_parts import lora_config

SIZES: dict[str, dict[str, Any]] = {
    "laptop": {"text": (384, 8, 6), "qformer": (192, 6, 3), "queries": (24, 40), "vision": (192, 4, 3, 112), "rows": 8},
    "paper": {
        "text": (4096, 32, 32),
        "qformer": (768, 12, 12),
        "queries": (86, 170),
        "vision": (1024, 24, 16, 224),
        "rows": 8,
    },
}  # width, layers and heads of each; side of the image; as many queries as patches of 14 pixels
REGION_WIDTH = 260


def build_rows(count: int, side: int) -> list[dict[str, Any]]:
    """Images of noise, two questions and answers of some words about each, up to 16 objects."""
    random, rows = np.random.default_rng(0), []
    for _ in range(count):
        objects = int(random.integers(0, 17))
        boxes = np.sort(random.random((objects, 2, 2)), axis=1).reshape(objects, 4)
        features = random.standard_normal((objects, REGION_WIDTH)).astype(np.float32)
        labels = [str(random.choice(WORDS)) for _ in range(objects)]
        words = [" ".join(random.choice(WORDS, int(random.integers(5, 15)))) for _ in range(4)]
        first = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": words[0]}]}
        turns = [("assistant", words[1]), ("user", words[2])]
        prompt = [first, *({"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns)]
        rows.append(
            {
                "images": [Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8))],
                "prompt": prompt,
                "completion": [{"role": "assistant", "content": [{"type": "text", "text": words[3]}]}],
                "visual_objects": [VisualObjects(labels, boxes, np.ones(objects), features)],
            }
        )
    return rows


def text_config(size: dict[str, Any], vocab_size: int) -> LlamaConfig:
    """A Llama; its feed-forward layers are as wide as the real one's in proportion."""
    width, layers, heads = size["text"]
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return LlamaConfig(**shape, intermediate_size=43 * width // 16, vocab_size=vocab_size)


def vision_config(size: dict[str, Any]) -> CLIPVisionConfig:
    """A ViT with patches of 14 pixels."""
    width, layers, heads, side = size["vision"]
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    config = CLIPVisionConfig(**shape, intermediate_size=4 * width)
    config.image_size, config.patch_size = side, 14
    return config


def build_lyrics(size: dict[str, Any], dtype: torch.dtype) -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """Model and processor."""
    side, tokenizer = size["vision"][3], build_text_tokenizer()
    processor = LyricsProcessor(
        LyricsImageProcessor(size={"height": side, "width": side}),
        tokenizer,
        add_stage_1_tokens(build_tokenizer()),
        num_query_tokens=sum(size["queries"]),
        region_feature_size=REGION_WIDTH,
    )
    width, layers, heads = size["qformer"]
    mqformer = LyricsMQFormerConfig(
        vocab_size=len(processor.mqformer_tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        num_visual_queries=size["queries"][0],
        num_grounding_queries=size["queries"][1],
        region_hidden_size=REGION_WIDTH,
        attention_probs_dropout_prob=0.0,
    )
    config = LyricsConfig(
        vision_config=vision_config(size),
        mqformer_config=mqformer,
        text_config=text_config(size, len(tokenizer)),
        image_token_id=processor.image_token_id,
    )
    return LyricsForConditionalGeneration(config).to(dtype), processor


def build_llava(
    size: dict[str, Any], dtype: torch.dtype, lyrics: LyricsProcessor
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Model and processor; conversations are written with the same template."""
    tokenizer = build_text_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    config = LlavaConfig(
        vision_config=vision_config(size),
        text_config=text_config(size, len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=sum(size["queries"]),
    )
    processor = LlavaProcessor(
        lyrics.image_processor,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=lyrics.chat_template,
        num_additional_image_tokens=1,
    )
    return LlavaForConditionalGeneration(config).to(dtype), processor


def build_trainers(size: dict[str, Any], folder: str, device: torch.device) -> dict[str, Any]:
    """Both trainers, on rows of their own, ready for a step."""
    from datasets import Dataset

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rows = build_rows(size["rows"], size["vision"][3])
    common: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": size["rows"],
        "gradient_checkpointing": False,
        "bf16": device.type == "cuda",
        "use_cpu": device.type == "cpu",
        "report_to": [],
        "max_length": None,
    }
    model, processor = build_lyrics(size, dtype)
    args = LyricsSFTConfig(**common)
    lyrics = LyricsSFTTrainer(model, args, rows, None, processor)
    peer_model, peer_processor = build_llava(size, dtype, processor)
    for parameter in peer_model.model.vision_tower.parameters():
        parameter.requires_grad_(False)
    peft_config = lora_config(args)
    peft_config.modules_to_save = ["multi_modal_projector"]
    plain = [{name: value for name, value in row.items() if name != "visual_objects"} for row in rows]
    peer: Any = SFTTrainer(
        model=peer_model,
        args=SFTConfig(**common),
        train_dataset=Dataset.from_list(plain),
        processing_class=peer_processor,
        peft_config=peft_config,
    )
    return {"Lyrics": lyrics, "LLaVA": peer}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="laptop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--match", action="store_true", help="compute the head at every position here too")
    parser.add_argument("--count", action="store_true", help="count operations, and time nothing")
    add_json_option(parser)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.manual_seed(0)
    size, device = SIZES[arguments.size], torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        trainers = build_trainers(size, folder, device)
        if arguments.match:
            trainers["Lyrics"].compute_loss = super(LyricsSFTTrainer, trainers["Lyrics"]).compute_loss
        batches, steps = {}, {}
        for name, trainer in trainers.items():
            trainer.model.train()
            trainer.current_gradient_accumulation_steps = 1
            trainer.create_optimizer()
            batches[name] = next(iter(trainer.get_train_dataloader()))
            steps[name] = step_of(trainer, batches[name])
            steps[f"{name}, connector"] = connector_of(trainer, batches[name])
        lyrics, peer = trainers["Lyrics"], trainers["LLaVA"]
        rows = [lyrics.train_dataset.dataset[index] for index in range(size["rows"])]
        lyrics.collator.processor.spatial_text = "short"
        steps["Lyrics, short text"] = step_of(lyrics, lyrics.collator(rows))
        lyrics.collator.processor.spatial_text = "decimal"
        table = count_operations(steps)
        tokens = {name: int(batch["attention_mask"].sum()) for name, batch in batches.items()}
        title = (
            f"Second stage beside TRL's SFTTrainer on LLaVA, {arguments.size} size, {size['rows']} rows, "
            f"{tokens['Lyrics']} tokens here and {tokens['LLaVA']} there"
        )
        if arguments.count:
            report(title, name_machine(device), table, arguments.json)
            return
        collating = {
            "Lyrics": lambda: lyrics.collator(rows),
            "LLaVA": lambda: peer.data_collator(list(peer.train_dataset)),
        }
        _, with_refiner = random_parts()
        refiner: Any = with_refiner.refiner.to(device)
        pictures, tags = [row["images"][0] for row in rows], [WORDS[:10]] * len(rows)
        step = steps["Lyrics"]
        steps["Lyrics, refiner"] = lambda: (refiner.refine(pictures, tags=tags, progress=False), step())
        times = take_turns(steps, arguments.repeats, device)
        made = take_turns(collating, arguments.repeats, device)
        memory = {
            name: kept_bytes(trainer.model, lambda t=trainer, n=name: loss_of(t, batches[n]), device)
            for name, trainer in trainers.items()
        }
    refining, short = times["Lyrics, refiner"], times["Lyrics, short text"]
    pairs: list[tuple[str, Timing, Timing, float | None]] = [
        ("a step of training", times["Lyrics"], times["LLaVA"], 0.95),
        ("a step of a new model with spatial_text: short", short, times["LLaVA"], 0.95),
        ("vision and connector, both ways", times["Lyrics, connector"], times["LLaVA, connector"], None),
        ("a step, beside one that refines its images (tiny refiner)", times["Lyrics"], refining, None),
        ("making a batch of rows", made["Lyrics"], made["LLaVA"], None),
    ]
    timed = [compare(what, ours, peer, goal, device) for what, ours, peer, goal in pairs]
    table = [*timed, *table]
    table.append(Row("kept for the backward pass", memory["Lyrics"] / 2**20, memory["LLaVA"] / 2**20, "MB"))
    report(title, name_machine(device), table, arguments.json)


def count_operations(steps: dict[str, Callable[[], Any]]) -> list[Row]:
    """Return the operations of a step, with the text of objects as it is and with the short one, beside LLaVA's."""
    peer = count_flop(steps["LLaVA"]) / 1e9
    names = {"a step": "Lyrics", "a step with spatial_text: short": "Lyrics, short text"}
    return [Row(f"{what}: operations", count_flop(steps[one]) / 1e9, peer, "GFLOP") for what, one in names.items()]


def compare(what: str, ours: Timing, peer: Timing, goal: float | None, device: torch.device) -> Row:
    """Return the row of processor time, which other programs disturb less; of seconds where a GPU computes."""
    spread = max(ours.spread, peer.spread)
    if device.type == "cuda":
        return Row(what, ours.median, peer.median, "s", goal, spread)
    return Row(f"{what}: processor time", ours.processor_median, peer.processor_median, "s", goal, spread)


def step_of(trainer: Any, batch: dict[str, Any]) -> Callable[[], Any]:
    """Forward, backward and the optimizer's step, as the trainer does them."""

    def step() -> None:
        trainer.training_step(trainer.model, dict(batch))
        trainer.optimizer.step()
        trainer.model.zero_grad()

    return step


def connector_of(trainer: Any, batch: dict[str, Any]) -> Callable[[], Any]:
    """From the images to what the language model is given of them, and back."""
    names = ("pixel_values", "region", "mqformer")
    inputs = trainer._prepare_inputs({name: value for name, value in batch.items() if name.startswith(names)})
    model = trainer.model.get_base_model().model

    def run() -> None:
        features: Any = model.get_image_features(**inputs, return_dict=True).pooler_output
        features = features if isinstance(features, torch.Tensor) else torch.cat(list(features))
        features.float().square().mean().backward()

    return run


def loss_of(trainer: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Forward as the trainer does it."""
    inputs = {name: value for name, value in batch.items() if name not in ("samples", "position", "replaced")}
    return trainer.compute_loss(trainer.model, trainer._prepare_inputs(inputs))


if __name__ == "__main__":
    main()
