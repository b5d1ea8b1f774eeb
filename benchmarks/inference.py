"""Answers of Lyrics beside those of Transformers' InstructBLIP, and what comes before an answer: the imports.

Both models have the same vision encoder, Q-Former and language model, and as many image tokens; weights are random.
Times are medians, in seconds and in processor time, and the two take turns. Before a second turn a refiner runs, which
InstructBLIP has not: one as large as the published ones, but at laptop size the micro one; `benchmarks/refiner.py`
measures refiners. Memory is the peak above what was there before: on a GPU as CUDA counts it, else as Linux does.

    python benchmarks/inference.py                                # laptop size
    python benchmarks/inference.py --size desk --repeats 3        # Llama of 160 million and ViT-B/14: some minutes
    python benchmarks/inference.py --size paper --device cuda     # Llama of 7 billion, ViT-L/14 and BERT-base, bfloat16
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measuring import Row, Timing, add_json_option, name_machine, peak_bytes, report, take_turns
from refiner import build_refiner, draw_pictures
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, LlamaConfig, StaticCache

from lyrics.modeling_lyrics import (
    LyricsConfig,
    LyricsForConditionalGeneration,
    LyricsMQFormerConfig,
)

SIZES: dict[str, dict[str, Any]] = {
    "laptop": {"text": (384, 8, 6), "qformer": (192, 6, 3), "vision": (192, 4, 3, 112), "refiner": "micro"},
    "desk": {"text": (1024, 12, 16), "qformer": (384, 6, 6), "vision": (768, 12, 12, 224), "refiner": (768, 12, 12)},
    "paper": {
        "text": (4096, 32, 32),
        "qformer": (768, 12, 12),
        "vision": (1024, 24, 16, 224),
        "refiner": (1280, 32, 16),
    },
}  # width, layers and heads of each, of a refiner's SAM; side of the image
VISUAL, GROUNDING, REGIONS, REGION_WIDTH = 32, 64, 16, 260
QUESTION, NEW_TOKENS, VOCABULARY = 24, 32, 2000
IMPORTS = {
    "transformers": "from transformers import LlavaForConditionalGeneration",
    "lyrics": "from lyrics.modeling_lyrics import LyricsForConditionalGeneration",
}


def text_config(size: dict[str, Any]) -> LlamaConfig:
    """A Llama that answers on until it is stopped."""
    width, layers, heads = size["text"]
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return LlamaConfig(**shape, intermediate_size=43 * width // 16, vocab_size=VOCABULARY, eos_token_id=None)


def vision_fields(size: dict[str, Any]) -> dict[str, Any]:
    """BLIP-2's ViT, which both models know."""
    width, layers, heads, side = size["vision"]
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**shape, "intermediate_size": 4 * width, "image_size": side, "patch_size": 14}


def build_lyrics(size: dict[str, Any]) -> LyricsForConditionalGeneration:
    """The model here."""
    width, layers, heads = size["qformer"]
    mqformer = LyricsMQFormerConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        num_visual_queries=VISUAL,
        num_grounding_queries=GROUNDING,
        region_hidden_size=REGION_WIDTH,
        encoder_hidden_size=size["vision"][0],
    )
    vision: Any = {"model_type": "blip_2_vision_model", **vision_fields(size)}
    config = LyricsConfig(
        vision_config=vision,
        mqformer_config=mqformer,
        text_config=text_config(size),
        image_token_id=VOCABULARY - 1,
        vision_feature_layer=-1,
    )
    return LyricsForConditionalGeneration(config).eval()


def build_instructblip(size: dict[str, Any]) -> InstructBlipForConditionalGeneration:
    """The peer, with as many queries as V + G."""
    width, layers, heads = size["qformer"]
    qformer = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "encoder_hidden_size": size["vision"][0],
    }
    config = InstructBlipConfig(
        vision_config=vision_fields(size),
        qformer_config=qformer,
        text_config=text_config(size).to_dict(),
        num_query_tokens=VISUAL + GROUNDING,
        image_token_index=VOCABULARY - 1,
    )
    return InstructBlipForConditionalGeneration(config).eval()


def build_models(size: dict[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Both models with random weights, made where they run: billions of weights are slow to draw elsewhere."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            models = {"lyrics": build_lyrics(size), "instructblip": build_instructblip(size)}
            return {name: model.requires_grad_(False) for name, model in models.items()}
    finally:
        torch.set_default_dtype(default)


def build_inputs(size: dict[str, Any], device: torch.device, dtype: torch.dtype) -> tuple[dict[str, Any], ...]:
    """Inputs of either model: an image, its objects (here only) and a question, which the Q-Former reads too."""
    generator = torch.Generator().manual_seed(0)
    side = size["vision"][3]
    question = torch.randint(3, VOCABULARY - 1, (1, QUESTION), generator=generator)
    ids = torch.cat([torch.full((1, VISUAL + GROUNDING), VOCABULARY - 1), question], dim=1)
    pixels = torch.randn(1, 3, side, side, generator=generator)
    regions = torch.randn(1, REGIONS, REGION_WIDTH, generator=generator)
    common = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    ours = {
        **common,
        "region_features": regions,
        "region_attention_mask": torch.ones(1, REGIONS, dtype=torch.long),
        "mqformer_input_ids": question,
        "mqformer_attention_mask": torch.ones_like(question),
    }
    theirs = {**common, "qformer_input_ids": question, "qformer_attention_mask": torch.ones_like(question)}

    def move(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            name: value.to(device, dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }

    return move(ours), move(theirs)


def answer(model: Any, inputs: dict[str, Any], count: int, **more: Any) -> Any:
    """`count` tokens, greedily."""
    with torch.inference_mode():
        return model.generate(**inputs, **more, max_new_tokens=count, min_new_tokens=count, do_sample=False)


# ---------------------------------------------------------------- what is measured


def compare_answers(models: dict[str, Any], inputs: dict[str, Any], repeats: int, device: torch.device) -> list[Row]:
    """Latency to the first token and to the last, tokens a second between them, processor time, FLOP and memory."""
    steps: dict[str, Callable[[], Any]] = {}
    for name, model in models.items():
        steps[f"{name} first"] = partial(answer, model, inputs[name], 1)
        steps[f"{name} all"] = partial(answer, model, inputs[name], NEW_TOKENS)
    times = take_turns(steps, repeats, device)
    rates = {name: (NEW_TOKENS - 1) / (times[f"{name} all"].median - times[f"{name} first"].median) for name in models}
    rows: list[Row] = []
    for part, what in (("first", "first token"), ("all", f"answer of {NEW_TOKENS} tokens")):
        ours, peer = (f"{name} {part}" for name in ("lyrics", "instructblip"))
        rows += compare_times(what, times[ours], times[peer])
        flop = [count_flop(steps[name]) for name in (ours, peer)]
        rows.append(Row(f"{what}, matrix products", *flop, unit="GFLOP"))
    rows.append(
        Row("tokens a second after the first", rates["lyrics"], rates["instructblip"], "/s", more_is_better=True)
    )
    memory = [peak_bytes(steps[f"{name} all"], device) / 2**20 for name in ("lyrics", "instructblip")]
    return [*rows, Row("peak memory of an answer", *memory, unit="MB")]


def count_flop(step: Callable[[], Any]) -> float:
    """Billions of floating-point operations of a step's matrix products, without those of attention on a CPU."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9


def compare_times(what: str, ours: Timing, peer: Timing) -> list[Row]:
    """Rows of the seconds and of the processor time of a step."""
    spread = max(ours.spread, peer.spread)
    return [
        Row(what, ours.median, peer.median, "s"),
        Row(f"{what}, processor time", ours.processor_median, peer.processor_median, "s", spread=spread),
    ]


def compare_turns(
    model: Any, refine: Callable[[], Any], inputs: dict[str, Any], repeats: int, device: torch.device
) -> list[Row]:
    """The first token of a second turn: all refined or encoded again, the image kept, and the past kept."""
    first = answer(model, inputs, NEW_TOKENS, return_dict_in_generate=True)
    question = inputs["input_ids"][:, -QUESTION:]
    ids = torch.cat([first.sequences, question], dim=1)
    again = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    image_names = [name for name in inputs if name not in ("input_ids", "attention_mask")]
    with torch.inference_mode():
        image = model.get_image_features(**{name: inputs[name] for name in image_names}, return_dict=True)
    kept = {"input_ids": ids, "attention_mask": again["attention_mask"], "mm_encoder_outputs": {"image": image}}

    def go_on() -> Any:
        return answer(model, kept, 1, cache=copy.deepcopy(first.cache))

    def begin_again() -> Any:
        refine()
        return answer(model, again, 1)

    steps = {
        "refined": begin_again,
        "again": partial(answer, model, again, 1),
        "image kept": partial(answer, model, kept, 1),
        "past": go_on,
    }
    times = take_turns(steps, repeats, device)
    return [
        *compare_times("second turn, image kept; peer: encoded again", times["image kept"], times["again"]),
        *compare_times("second turn, image and past kept; peer: encoded again", times["past"], times["again"]),
        *compare_times("the same; peer: refined and encoded again", times["past"], times["refined"]),
    ]


def measure_imports(repeats: int) -> Row:
    """Seconds of a fresh interpreter."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(repeats + 1):
        for name, line in IMPORTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", line], check=True, stderr=subprocess.DEVNULL)  # noqa: S603
            times[name].append(time.perf_counter() - start)
    ours, theirs = (statistics.median(times[name][1:]) for name in ("lyrics", "transformers"))
    return Row("import; peer: Transformers' LLaVA", ours, theirs, "s")


def measure_roofline(model: Any, inputs: dict[str, Any], repeats: int, device: torch.device) -> list[Row]:
    """Decoding with a static cache and compilation, as a share of what reading all weights once a token allows.

    One cache serves all answers: Transformers makes a new one for each otherwise, and CUDA graphs are recorded anew.
    """
    size = 2**30
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=512)

    def answer_of(count: int) -> None:
        with torch.inference_mode():
            cache.reset()
        answer(model, inputs, count, cache=cache)

    steps: dict[str, Callable[[], Any]] = {
        "copy": lambda: target.copy_(source),
        "first": partial(answer_of, 1),
        "all": partial(answer_of, NEW_TOKENS),
    }
    times = take_turns(steps, repeats, device)
    decoder = (*model.model.language_model.parameters(), *model.lm_head.parameters())
    weights = sum(one.numel() * one.element_size() for one in {id(one): one for one in decoder}.values())
    ideal = 2 * size / times["copy"].median / weights
    rate = (NEW_TOKENS - 1) / (times["all"].median - times["first"].median)
    busy = [_device_seconds(steps[name]) for name in ("first", "all")]
    alone = (NEW_TOKENS - 1) / (busy[1] - busy[0])
    what = "tokens a second, static cache; peer: the memory's roofline"
    return [
        Row(what, rate, ideal, "/s", more_is_better=True),
        Row("the same, counting the device's work alone", alone, ideal, "/s", more_is_better=True),
    ]


def _device_seconds(step: Callable[[], Any]) -> float:
    """What the device computes in a step, without the gaps in which it waits for Python."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        step()
        torch.cuda.synchronize()
    events: Any = seen.events()
    return sum(one.device_time for one in events if one.device_type == DeviceType.CUDA) / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="laptop", help="default: laptop")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--repeats", type=int, default=7, help="of each step (default: 7)")
    parser.add_argument("--threads", type=int, help="of the processor")
    add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device, size = torch.device(arguments.device), SIZES[arguments.size]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    models = build_models(size, device, dtype)
    inputs = dict(zip(models, build_inputs(size, device, dtype), strict=True))
    rows = compare_answers(models, inputs, arguments.repeats, device)
    refine = partial(build_refiner(size["refiner"], device).refine, draw_pictures(1), progress=False)
    rows += compare_turns(models["lyrics"], refine, inputs["lyrics"], arguments.repeats, device)
    if device.type == "cuda":
        rows += measure_roofline(models["lyrics"], inputs["lyrics"], arguments.repeats, device)
    rows.append(measure_imports(min(arguments.repeats, 3)))  # which vary little and take seconds each
    title = f"Answers beside Transformers' InstructBLIP, {arguments.size} size, {dtype}".replace("torch.", "")
    report(title, name_machine(device), rows, arguments.json)


if __name__ == "__main__":
    main()
