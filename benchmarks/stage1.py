"""The first stage's step beside BLIP-2's schedule on Transformers' own Q-Former, and beside an on-line refiner.

Both have the same sizes, batches, four losses and hard negatives. The peer runs the passes of BLIP-2 (queries; text;
three times the rows for matching; queries and text for captions, and for masked objects), each with the image's
features projected anew and a head over every position; once with texts at their true length, and once padded to 600
tokens as in the original code. It has one cross-attention where Lyrics has two. Neither drops attention weights, so
that both run fused attention also on a CPU. Memory is what a step keeps for its backward pass, or on a GPU its peak
above the weights.

    python benchmarks/stage1.py                                # laptop size
    python benchmarks/stage1.py --size paper --device cuda     # ViT-L/14 and BERT-base
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measuring import kept_bytes, measure, name_machine
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from transformers import (
    CLIPVisionConfig,
    InstructBlipQFormerConfig,
    InstructBlipQFormerModel,
    PreTrainedTokenizerFast,
    SamConfig,
)
from transformers.utils import logging

from lyrics.assets import random_parts
from lyrics.modeling_lyrics import (
    LyricsForPreTraining,
    LyricsMQFormerConfig,
    LyricsPreTrainingConfig,
    LyricsRefinerConfig,
    LyricsVisualRefiner,
    RamConfig,
)
from lyrics.modeling_lyrics.modeling_lyrics import run_vision_model
from lyrics.modeling_lyrics.pretraining_objectives import LanguageModelingHead
from lyrics.processing_lyrics import LyricsImageProcessor, LyricsProcessor, VisualObjects
from lyrics.trainers import LyricsPretrainingCollator

SIZES: dict[str, dict[str, Any]] = {
    "laptop": {"qformer": (192, 6, 3), "queries": (16, 32), "vision": (192, 4, 3, 112, 14), "rows": 8},
    "paper": {"qformer": (768, 12, 12), "queries": (32, 64), "vision": (1024, 24, 16, 224, 14), "rows": 64},
}  # width, layers and heads of each; side and patch of the vision encoder
REGION_WIDTH = 260
PADDED = 600  # the original pads every text to it; positions go as far
WORDS = [f"word{index}" for index in range(2000)]


def build_tokenizer(vocab_size: int = 30522) -> PreTrainedTokenizerFast:
    """As many tokens as BERT; a word, and three digits, are one token, as most are in BERT."""
    vocabulary = {token: index for index, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}
    for token in [*".,:;[]01", *(f"{number:03d}" for number in range(1000)), *WORDS]:
        vocabulary.setdefault(token, len(vocabulary))
    vocabulary |= {f"[unused{index}]": index for index in range(len(vocabulary), vocab_size)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", model_max_length=512, **special)


def build_rows(count: int, side: int) -> list[dict[str, Any]]:
    """Pictures of noise, captions of 6 to 25 words, 0 to 16 objects."""
    random, rows = np.random.default_rng(0), []
    for _ in range(count):
        objects = int(random.integers(0, 17))
        boxes = np.sort(random.random((objects, 2, 2)), axis=1).reshape(objects, 4)
        labels = [str(random.choice(WORDS)) for _ in range(objects)]
        features = random.standard_normal((objects, REGION_WIDTH)).astype(np.float32)
        rows.append(
            {
                "image": Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)),
                "caption": " ".join(random.choice(WORDS, int(random.integers(6, 26)))),
                "visual_objects": VisualObjects(labels, boxes, np.ones(objects), features),
            }
        )
    return rows


def sizes_of(size: dict[str, Any]) -> dict[str, int]:
    """What both Q-Formers have in common."""
    width, layers, heads = size["qformer"]
    common = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return common | {"intermediate_size": 4 * width, "attention_probs_dropout_prob": 0}


def build_lyrics(size: dict[str, Any], vocab_size: int, **weights: float) -> LyricsForPreTraining:
    """The model, with its vision encoder frozen."""
    width, layers, heads, side, patch = size["vision"]
    vision = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads
    )
    vision.image_size, vision.patch_size = side, patch
    mqformer = LyricsMQFormerConfig(
        vocab_size=vocab_size,
        num_visual_queries=size["queries"][0],
        num_grounding_queries=size["queries"][1],
        region_hidden_size=REGION_WIDTH,
        **sizes_of(size),
    )
    config = LyricsPreTrainingConfig(vision_config=vision, mqformer_config=mqformer, **weights)
    model = LyricsForPreTraining(config)
    model.model.vision_model.requires_grad_(False)
    return model.train()


class FourPasses(nn.Module):
    """BLIP-2's schedule for the same objectives, on Transformers' Q-Former."""

    def __init__(self, size: dict[str, Any], vocab_size: int, vision_model: nn.Module) -> None:
        super().__init__()
        config = InstructBlipQFormerConfig(
            vocab_size=vocab_size,
            encoder_hidden_size=size["vision"][0],
            max_position_embeddings=PADDED,
            **sizes_of(size),
        )
        width = config.hidden_size
        self.vision_model = vision_model
        self.norm = nn.LayerNorm(size["vision"][0])
        self.qformer = InstructBlipQFormerModel._from_config(config, attn_implementation="sdpa")
        self.queries = nn.Parameter(torch.randn(1, sum(size["queries"]), width) * 0.02)
        self.vision_projection, self.text_projection = (nn.Linear(width, 256) for _ in range(2))
        self.temperature, self.itm_head = nn.Parameter(torch.tensor(0.07)), nn.Linear(width, 2)
        self.lm_head = LanguageModelingHead(LyricsMQFormerConfig(vocab_size=vocab_size, hidden_size=width))
        self.lm_head.decoder.weight = self.qformer.embeddings.word_embeddings.weight

    def run(self, features: Any, text: dict[str, torch.Tensor] | None, mask: Any = None) -> torch.Tensor:
        """One pass, with the features of the vision encoder projected in every layer anew."""
        rows = len(features) if features is not None else len(text["ids"])  # pyright: ignore[reportOptionalSubscript]
        queries = None if features is None else self.queries.expand(rows, -1, -1)
        if text is not None and mask is None:
            mask = text["attended"]
            if queries is not None:
                mask = torch.cat([mask.new_ones(rows, queries.shape[1]), mask], dim=1)
        return self.qformer(
            input_ids=None if text is None else text["ids"],
            position_ids=None if text is None else text["positions"],
            attention_mask=mask,
            query_embeds=queries,
            encoder_hidden_states=features,
        ).last_hidden_state

    def predict(self, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The head over every position, as BLIP-2 does it."""
        return cross_entropy(self.lm_head(states).flatten(0, 1), labels.flatten(), label_smoothing=0.1)

    def forward(self, pixel_values: torch.Tensor, text: dict[str, torch.Tensor]) -> torch.Tensor:
        """The sum of the four losses."""
        with torch.no_grad():
            features, _ = run_vision_model(self.vision_model, pixel_values, -2)
        features = self.norm(features)
        rows, count = len(features), self.queries.shape[1]
        own = torch.arange(rows, device=features.device)
        words = {name: text[name] for name in ("ids", "positions", "attended")}
        images = normalize(self.vision_projection(self.run(features, None)), dim=-1)
        captions = normalize(self.text_projection(self.run(None, words)[:, 0]), dim=-1)
        similarity = torch.einsum("iqd,td->itq", images, captions).max(-1).values / self.temperature
        loss = (cross_entropy(similarity, own) + cross_entropy(similarity.T, own)) / 2
        is_own = own[:, None] == own
        weights = similarity.detach().softmax(1).masked_fill(is_own, 0) + 1e-9
        wrong_texts, wrong_images = weights.multinomial(1)[:, 0], weights.T.multinomial(1)[:, 0]
        places, order = torch.cat([own, own, wrong_texts]), torch.cat([own, wrong_images, own])
        states = self.run(features[order], {name: value[places] for name, value in words.items()})
        matches = (torch.arange(3 * rows, device=own.device) < rows).long()
        loss = loss + cross_entropy(self.itm_head(states[:, :count]).mean(1), matches)
        length = text["ids"].shape[1]
        causal = torch.ones(rows, 1, count + length, count + length, dtype=torch.bool, device=own.device)
        causal[:, :, :count, count:] = False
        causal[:, :, count:, count:] = text["attended"].bool()[:, None, None, :]
        causal[:, :, count:, count:] &= torch.ones(length, length, dtype=torch.bool, device=own.device).tril()
        loss = loss + self.predict(self.run(features, words, causal)[:, count:], text["next"])
        masked = {**words, "ids": text["masked"]}
        return loss + self.predict(self.run(features, masked)[:, count:], text["hidden"])


def peer_text(batch: dict[str, Any], length: int | None) -> dict[str, torch.Tensor]:
    """The same texts for the peer, at their true length or padded."""
    ids, segments = batch["input_ids"], batch["segment_ids"]
    hidden = torch.full_like(ids, -100).flatten()
    kept = batch["masked_labels"] >= 0
    hidden[batch["masked_positions"][kept]] = batch["masked_labels"][kept]
    is_word = (segments == 4).roll(-1, 1)
    is_word[:, -1] = False
    text = {
        "ids": ids,
        "positions": batch["position_ids"],
        "attended": (segments > 0).long(),
        "masked": batch["masked_input_ids"],
        "next": torch.where(is_word, ids.roll(-1, 1), -100),
        "hidden": hidden.view_as(ids),
    }
    if length is not None:
        padding = {"next": -100, "hidden": -100}
        text = {
            name: nn.functional.pad(value, (0, length - value.shape[1]), value=padding.get(name, 0))
            for name, value in text.items()
        }
    return text


def build_refiner(size: str) -> LyricsVisualRefiner:
    """The micro refiner for the laptop; at paper size RAM (Swin-L), Grounding DINO (Swin-T) and SAM (ViT-H), random.

    With thresholds of 0 it keeps 16 objects of each picture.
    """
    if size == "laptop":
        return random_parts()[1].refiner
    tags = {index: f"word{index}" for index in range(4585)}
    vision = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "mlp_dim": 5120}
    segmenter = SamConfig(vision_config=vision | {"global_attn_indexes": [7, 15, 23, 31]})
    config = LyricsRefinerConfig(
        tagger_config=RamConfig(id2label=tags, label2id={tag: index for index, tag in tags.items()}, threshold=0.7),
        segmenter_config=segmenter,
        box_threshold=0.0,
        text_threshold=0.0,
        max_regions=16,
    )
    refiner = LyricsVisualRefiner(config)
    refiner.tokenizer = build_tokenizer()
    return refiner


def time_parts(
    size: dict[str, Any], batch: dict[str, Any], vocab_size: int, repeats: int, device: torch.device
) -> dict[str, float]:
    """Seconds of the vision encoder, and what a step takes more with an objective than without it."""
    names = ("itc", "itm", "icg", "msp")
    variants: dict[str, dict[str, float]] = {"all": {}, **{name: {f"{name}_weight": 0.0} for name in names}}
    models = {name: build_lyrics(size, vocab_size, **weights).to(device) for name, weights in variants.items()}

    @torch.no_grad()
    def run_vision() -> None:
        run_vision_model(models["all"].model.vision_model, batch["pixel_values"], -2)

    steps: dict[str, Callable[[], Any]] = {"vision": run_vision}
    for name, model in models.items():
        steps[name] = lambda model=model: model(**batch).loss.backward()
    times = measure(steps, repeats, device)
    return {"vision encoder": times["vision"], **{name: times["all"] - times[name] for name in names}}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="laptop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, help="rows of a batch")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.manual_seed(0)
    size, device = SIZES[arguments.size], torch.device(arguments.device)
    rows = build_rows(arguments.rows or size["rows"], size["vision"][3])
    tokenizer = build_tokenizer()
    side = {"height": size["vision"][3], "width": size["vision"][3]}
    processor = LyricsProcessor(LyricsImageProcessor(size=side), build_tokenizer(), tokenizer)
    batch = LyricsPretrainingCollator(processor)(rows)
    del batch["samples"]
    batch = {name: value.to(device) for name, value in batch.items()}
    model = build_lyrics(size, len(tokenizer)).to(device)
    peer = FourPasses(size, len(tokenizer), model.model.vision_model).to(device).train()
    texts = {"true length": peer_text(batch, None), f"padded to {PADDED}": peer_text(batch, PADDED)}
    refiner = build_refiner(arguments.size).to(device)
    pictures, tags = [row["image"] for row in rows], [WORDS[:10]] * len(rows)

    runs: dict[str, Callable[[], torch.Tensor]] = {"Lyrics": lambda: model(**batch).loss}
    for name, text in texts.items():
        runs[f"four passes, {name}"] = lambda text=text: peer(batch["pixel_values"], text)
    steps: dict[str, Callable[[], Any]] = {name: lambda run=run: run().backward() for name, run in runs.items()}

    def step_with_refiner() -> None:
        if refiner.tagger is not None:  # its answer is random, so that words are given; but it is asked
            refiner._tag(refiner.preprocess(pictures)["tagger_pixel_values"])
        refiner.refine(pictures, tags=tags, batch_size=8, progress=False)
        model(**batch).loss.backward()

    steps["Lyrics, refiner on line"] = step_with_refiner
    seconds = measure(steps, arguments.repeats, device)
    memory = {name: kept_bytes(model if name == "Lyrics" else peer, run, device) for name, run in runs.items()}
    lengths = (batch["segment_ids"] > 0).sum(1)
    print(f"{arguments.size} size, {len(rows)} rows, texts of {lengths.min()} to {lengths.max()} tokens")
    print(f"{name_machine(device)}\n")
    print("| step (forward and backward) | images/s | kept for backward | time over Lyrics | memory over Lyrics |")
    print("|---|---|---|---|---|")
    for name, value in seconds.items():
        kept = f"{memory[name] / 2**20:.0f} MB" if name in memory else ""
        ratio = f"{memory[name] / memory['Lyrics']:.2f}" if name in memory else ""
        print(f"| {name} | {len(rows) / value:.2f} | {kept} | {value / seconds['Lyrics']:.2f} | {ratio} |")
    print("\n| part of Lyrics' step | ms |\n|---|---|")
    for name, value in time_parts(size, batch, len(tokenizer), arguments.repeats, device).items():
        print(f"| {name} | {1000 * value:.0f} |")


if __name__ == "__main__":
    main()
