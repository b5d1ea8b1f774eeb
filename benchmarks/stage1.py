"""The first stage's step beside the schedules of the original code and of BLIP-2, and beside an on-line refiner.

The peers are in `stage1_peer.py`: their passes, with the same sizes, batches, losses and hard negatives. The original
runs as it stands (all 900 queries of Grounding DINO as regions, every text padded to 600 tokens), and with as many
regions and tokens as we have; BLIP-2 runs its three losses on captions padded to 32 tokens. Each row tells the dropout
of attention: with it no fused attention runs on a CPU. Seconds are medians of turns, and so is processor time, which
other processes disturb less. Operations, and the bytes kept for the backward pass, are counted on tensors without
numbers, for a CPU's attention; so they can be counted for any size.

    python benchmarks/stage1.py                                # laptop size
    python benchmarks/stage1.py --size paper --count           # ViT-L/14 and BERT-base: operations and memory alone
    python benchmarks/stage1.py --size paper --device cuda
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from measuring import Counts, Row, add_json_option, count, measure, name_machine, report, take_turns
from PIL import Image
from stage1_peer import Peer, PeerSettings
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import CLIPVisionConfig, PreTrainedTokenizerFast, SamConfig
from transformers.utils import logging

from lyrics.assets import random_parts
from lyrics.modeling_lyrics import (
    LyricsForPreTraining,
    LyricsMQFormerConfig,
    LyricsPreTrainingConfig,
    LyricsRefinerConfig,
    LyricsVisualRefiner,
    RamConfig,
    mqformer_length_groups,
)
from lyrics.modeling_lyrics.mqformer_attention_masks import SegmentedText
from lyrics.modeling_lyrics.vision_encoder import run_vision_model
from lyrics.processing_lyrics import LyricsImageProcessor, LyricsProcessor, VisualObjects
from lyrics.trainers import LyricsPretrainingCollator

SIZES: dict[str, dict[str, Any]] = {
    "laptop": {"qformer": (192, 6, 3), "queries": (16, 32), "vision": (192, 4, 3, 112, 14), "rows": 8},
    "paper": {"qformer": (768, 12, 12), "queries": (32, 64), "vision": (1024, 24, 16, 224, 14), "rows": 64},
}  # width, layers and heads of each; side and patch of the vision encoder
REGION_WIDTH = 260
PADDED, REGIONS = 600, 900  # tokens and regions of every row of the original
CAPTION_LENGTH = 32  # tokens to which BLIP-2 pads
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
    """Images of noise, captions of 6 to 25 words, 0 to 16 objects."""
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


def build_lyrics(
    size: dict[str, Any], vocab_size: int, attention_dropout: float = 0.0, with_regions: bool = True, **weights: float
) -> LyricsForPreTraining:
    """The model, with its vision encoder frozen."""
    width, layers, heads, side, patch = size["vision"]
    vision = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads
    )
    vision.image_size, vision.patch_size = side, patch
    mqformer = LyricsMQFormerConfig(
        vocab_size=vocab_size,
        num_visual_queries=size["queries"][0],
        num_grounding_queries=size["queries"][1] if with_regions else 0,
        region_hidden_size=REGION_WIDTH,
        hidden_size=size["qformer"][0],
        num_hidden_layers=size["qformer"][1],
        num_attention_heads=size["qformer"][2],
        intermediate_size=4 * size["qformer"][0],
        attention_probs_dropout_prob=attention_dropout,
    )
    if not with_regions:
        weights["msp_weight"] = 0.0
    config = LyricsPreTrainingConfig(vision_config=vision, mqformer_config=mqformer, **weights)
    model = LyricsForPreTraining(config)
    model.model.vision_model.requires_grad_(False)
    return model.train()


def build_peer(
    size: dict[str, Any], vocab_size: int, vision_model: nn.Module, attention_dropout: float, with_regions: bool = True
) -> Peer:
    """A peer of the same sizes, on the same vision encoder."""
    width, layers, heads = size["qformer"]
    queries = size["queries"] if with_regions else (size["queries"][0], 0)
    sizes = (width, layers, heads, vocab_size, PADDED, size["vision"][0], REGION_WIDTH if with_regions else 0, *queries)
    return Peer(PeerSettings(*sizes, attention_dropout=attention_dropout), vision_model).train()


def peer_text(batch: dict[str, Any], length: int | None) -> dict[str, torch.Tensor]:
    """The same objects and captions for the peer, at the length of the longest or padded."""
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
    return text if length is None else pad_text(text, length)


def peer_captions(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The captions alone, padded as BLIP-2 pads them."""
    ids, attended = batch["caption_input_ids"], (batch["caption_segment_ids"] > 0).long()
    is_word = attended.roll(-1, 1).bool()
    is_word[:, -1] = False
    following = torch.where(is_word, ids.roll(-1, 1), -100)
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    text = {"ids": ids, "positions": positions, "attended": attended, "next": following}
    return pad_text(text, max(CAPTION_LENGTH, ids.shape[1]))


def pad_text(text: dict[str, torch.Tensor], length: int) -> dict[str, torch.Tensor]:
    """Pad a text of the peer; labels with -100."""
    labels = {"next": -100, "hidden": -100}
    return {
        name: nn.functional.pad(value, (0, length - value.shape[1]), value=labels.get(name, 0))
        for name, value in text.items()
    }


@dataclass
class Comparison:
    """Two steps that are compared.

    Attributes:
        what: name of the row.
        goal: smallest ratio that is wanted.
        attention_dropout: probability in ours and in the peer.
        with_regions: bool, whether objects are there; else it is BLIP-2.
        as_it_stands: bool, whether the peer has 900 regions and 600 tokens.
    """

    what: str
    goal: float
    attention_dropout: tuple[float, float]
    with_regions: bool = True
    as_it_stands: bool = False


COMPARISONS = (
    Comparison("original as it stands, attention dropout 0.1; ours 0", 6.0, (0.0, 0.1), as_it_stands=True),
    Comparison("original, 16 regions, true length, attention dropout 0 in both", 2.0, (0.0, 0.0)),
    Comparison("original, 16 regions, true length, attention dropout 0.1 in both", 2.0, (0.1, 0.1)),
    Comparison("BLIP-2, its three losses, attention dropout 0 in both", 1.6, (0.0, 0.0), with_regions=False),
)

Batch = dict[str, torch.Tensor]
Step = tuple[Any, Callable[[], torch.Tensor]]  # a model, and a function that returns its loss


def text_of(one: Comparison, batch: Batch) -> Batch:
    """Return the text of the peer."""
    return peer_text(batch, PADDED if one.as_it_stands else None) if one.with_regions else peer_captions(batch)


def build_pair(
    size: dict[str, Any], vocab_size: int, one: Comparison, batch: Batch, text: Batch, device: torch.device
) -> dict[str, Step]:
    """Build both models of a comparison; `text` is the peer's, of `text_of`."""
    ours: Any = build_lyrics(size, vocab_size, one.attention_dropout[0], one.with_regions)
    peer: Any = build_peer(size, vocab_size, ours.model.vision_model, one.attention_dropout[1], one.with_regions)
    if device.type != "cpu":  # tensors without numbers cannot be moved
        ours, peer = ours.to(device), peer.to(device)
    regions = batch.get("region_features")
    if regions is not None and one.as_it_stands:
        regions = regions.new_zeros(len(regions), REGIONS, REGION_WIDTH).normal_()
    pixels = batch["pixel_values"]
    return {"ours": (ours, lambda: ours(**batch).loss), "peer": (peer, lambda: peer(pixels, regions, text))}


def count_steps(
    size: dict[str, Any], vocab_size: int, one: Comparison, batches: tuple[Batch, Batch], recompute: Any = "none"
) -> dict[str, Counts]:
    """Count both steps of a comparison on tensors without numbers; `batches` are with and without objects."""
    batch = batches[not one.with_regions]
    text = text_of(one, batch)

    def build(name: str) -> Step:
        pair = build_pair(size, vocab_size, one, batch, text, torch.device("cpu"))
        pair["ours"][0].set_recomputation(recompute)
        return pair[name]

    names = ("ours", "peer") if recompute == "none" else ("ours",)
    ids = batch["segment_ids"]
    own = mqformer_length_groups.text_lengths(SegmentedText(ids, ids, ids))
    captions = (batches[0]["caption_segment_ids"] > 0).sum(1).tolist()

    def lengths_of(text: SegmentedText) -> list[int]:
        """Return the lengths of the batch's own texts, also for wrong ones, which are drawn among them."""
        lengths = captions if text.input_ids.shape[1] == max(captions) else own
        return lengths * (len(text.input_ids) // len(lengths))

    # both read numbers, and there are none
    with (
        patch("lyrics.modeling_lyrics.modeling_mqformer._check_range"),
        patch("lyrics.modeling_lyrics.mqformer_length_groups.text_lengths", lengths_of),
    ):
        return {name: count(lambda name=name: build(name)) for name in names}


def build_refiner(size: str) -> LyricsVisualRefiner:
    """The micro refiner for the laptop; at paper size RAM (Swin-L), Grounding DINO (Swin-T) and SAM (ViT-H), random.

    With thresholds of 0 it keeps 16 objects of each image.
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


def time_comparison(
    size: dict[str, Any], vocab_size: int, one: Comparison, batches: tuple[Batch, Batch], repeats: int, device: Any
) -> list[Row]:
    """Return seconds and processor time of both steps; for BLIP-2 also without the vision encoder, which both run."""
    batch = batches[not one.with_regions]
    pair = build_pair(size, vocab_size, one, batch, text_of(one, batch), device)
    steps: dict[str, Callable[[], Any]] = {name: lambda run=run: run().backward() for name, (_, run) in pair.items()}
    pixels, vision_model = batches[0]["pixel_values"], pair["ours"][0].model.vision_model
    steps["vision"] = lambda: see(vision_model, pixels)
    times = take_turns(steps, repeats, device)
    ours, peer = times["ours"], times["peer"]
    spread = max(ours.spread, peer.spread)
    rows = [
        Row(one.what, ours.median, peer.median, "s a step", one.goal, spread),
        Row(f"{one.what}: processor time", ours.processor_median, peer.processor_median, "s a step", one.goal, spread),
    ]
    if not one.with_regions:
        seen = times["vision"].processor_median
        both = (ours.processor_median - seen, peer.processor_median - seen)
        rows.append(Row(f"{one.what}: without the vision encoder, processor time", *both, "s a step", 2.0, spread))
    return rows


@torch.no_grad()
def see(vision_model: Any, pixel_values: torch.Tensor) -> None:
    """Run the vision encoder alone."""
    run_vision_model(vision_model, pixel_values, -2)


def time_recomputation(
    size: dict[str, Any], vocab_size: int, batch: Batch, repeats: int, device: torch.device
) -> list[Row]:
    """Return what the steps that recompute take, beside the step that keeps everything."""
    model = build_lyrics(size, vocab_size).to(device)
    steps: dict[str, Callable[[], Any]] = {}
    for name in ("none", "feed_forward", "matching"):

        def step(name: Any = name) -> None:
            model.set_recomputation(name)
            model(**batch).loss.backward()

        steps[name] = step
    times = take_turns(steps, repeats, device)
    plain = times.pop("none")
    return [
        Row(
            f"recompute: {name}, beside none: processor time",
            time.processor_median,
            plain.processor_median,
            "s a step",
            0.91 if name == "feed_forward" else None,
            max(time.spread, plain.spread),
        )
        for name, time in times.items()
    ]


def count_all(size: dict[str, Any], vocab_size: int, batches: tuple[Batch, Batch]) -> list[Row]:
    """Return operations and kept bytes of all comparisons, and of the step that recomputes."""
    rows = []
    for one in COMPARISONS:
        counts = count_steps(size, vocab_size, one, batches)
        ours, peer = counts["ours"], counts["peer"]
        rows.append(Row(f"{one.what}: operations", ours.flop / 1e9, peer.flop / 1e9, "GFLOP a step", one.goal))
        rows.append(Row(f"{one.what}: kept for the backward pass", ours.kept / 2**20, peer.kept / 2**20, "MB"))
        if one.as_it_stands:
            for name in ("feed_forward", "matching"):
                less = count_steps(size, vocab_size, one, batches, name)["ours"]
                what = f"{one.what}, recompute: {name}"
                rows.append(Row(f"{what}: operations", less.flop / 1e9, peer.flop / 1e9, "GFLOP a step"))
                rows.append(Row(f"{what}: kept", less.kept / 2**20, peer.kept / 2**20, "MB", 8.0))
    return rows


def time_refiner(
    name: str, vocab_size: int, rows: list[dict[str, Any]], batch: Batch, repeats: int, device: torch.device
) -> Row:
    """Return a step on stored objects beside one that refines its images."""
    model, refiner = build_lyrics(SIZES[name], vocab_size).to(device), build_refiner(name).to(device)
    pictures, tags = [row["image"] for row in rows], [WORDS[:10]] * len(rows)

    def step_with_refiner() -> None:
        if refiner.tagger is not None:  # its answer is random, so that words are given; but it is asked
            refiner._tag(refiner.preprocess(pictures)["tagger_pixel_values"])
        refiner.refine(pictures, tags=tags, batch_size=8, progress=False)
        model(**batch).loss.backward()

    steps = {"ours": lambda: model(**batch).loss.backward(), "peer": step_with_refiner}
    times = take_turns(steps, repeats, device)
    ours, peer = times["ours"], times["peer"]
    what = "a step on stored objects; peer: a step that refines its images: processor time"
    return Row(what, ours.processor_median, peer.processor_median, "s a step", None, max(ours.spread, peer.spread))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="laptop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, help="rows of a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--count", action="store_true", help="count operations and memory, and time nothing")
    parser.add_argument("--parts", action="store_true", help="time the vision encoder and each objective too")
    add_json_option(parser)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.manual_seed(0)
    size, device = SIZES[arguments.size], torch.device(arguments.device)
    rows = build_rows(arguments.rows or size["rows"], size["vision"][3])
    tokenizer = build_tokenizer()
    side = {"height": size["vision"][3], "width": size["vision"][3]}
    processor = LyricsProcessor(LyricsImageProcessor(size=side), build_tokenizer(), tokenizer)
    collators = (LyricsPretrainingCollator(processor), LyricsPretrainingCollator(processor, use_objects=False))
    made = [{k: v for k, v in collator(rows).items() if isinstance(v, torch.Tensor)} for collator in collators]
    vocab_size, lengths = len(tokenizer), (made[0]["segment_ids"] > 0).sum(1)
    table = count_all(size, vocab_size, (made[0], made[1]))
    if not arguments.count:
        batches = tuple({name: value.to(device) for name, value in batch.items()} for batch in made)
        for one in COMPARISONS:
            table += time_comparison(size, vocab_size, one, (batches[0], batches[1]), arguments.repeats, device)
        table += time_recomputation(size, vocab_size, batches[0], arguments.repeats, device)
        table.append(time_refiner(arguments.size, vocab_size, rows, batches[0], arguments.repeats, device))
    title = f"First stage, {arguments.size} size, {len(rows)} rows, texts of {lengths.min()} to {lengths.max()} tokens"
    machine = "counted, not timed" if arguments.count else name_machine(device)
    report(title, machine, table, arguments.json)
    if arguments.parts:
        print("| part of Lyrics' step | ms |\n|---|---|")
        batch = {name: value.to(device) for name, value in made[0].items()}
        for name, value in time_parts(size, batch, vocab_size, arguments.repeats, device).items():
            print(f"| {name} | {1000 * value:.0f} |")


if __name__ == "__main__":
    main()
