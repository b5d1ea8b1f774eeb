"""The refiner: beside a Grounded-SAM script, its parts, its preprocessing, and its batches.

Weights are random, and thresholds are such that they see as many objects as there may be; no accuracy is measured. The
script calls the same detector and segmenter of Transformers on the same image, with their own processors. What takes
turns is compared by processor time, which other programs change less than they change the seconds; FLOP are those that
torch counts. RAM is not in the comparison, since Transformers does not have it.

    python benchmarks/refiner.py compare                            # some minutes
    python benchmarks/refiner.py parts --only "SAM 2.1 tiny"        # all parts: half an hour and 8 GB of memory
    python benchmarks/refiner.py preprocessing
    python benchmarks/refiner.py batches
"""

from __future__ import annotations

import argparse
import copy
import io
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from measuring import Row, add_json_option, count_flop, measure, name_machine, peak_bytes, report, take_turns
from PIL import Image
from transformers import GroundingDinoProcessor, SamProcessor
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from lyrics.assets import draw_table
from lyrics.assets.random_model import TAGS, build_bert_tokenizer, micro_refiner_config
from lyrics.modeling_lyrics import LyricsRefinerConfig, LyricsVisualRefiner, RamConfig
from lyrics.refinement.storage.picture_hash import read_picture
from lyrics.utils.native_dtype import native_dtype

REGIONS = 16  # objects of an image
ASKED = 12  # tags
SAM = {"ViT-B": (768, 12, 12), "ViT-L": (1024, 24, 16), "ViT-H": (1280, 32, 16)}  # width, layers and heads
Shape = tuple[int, int, int]  # width, layers and heads of SAM's image encoder


def refiner_config(shape: Shape | str, vocab_size: int) -> LyricsRefinerConfig:
    """RAM with Swin-L, Grounding DINO with Swin-T and SAM as published, or a `"micro"` refiner."""
    if isinstance(shape, str):
        return micro_refiner_config(vocab_size)
    tagger = {"id2label": dict(enumerate(TAGS)), "threshold": 0.0}
    return LyricsRefinerConfig(tagger_config=tagger, segmenter_config=_sam(*shape), **_seeing_all(vocab_size))


def _seeing_all(vocab_size: int) -> dict[str, Any]:
    """Return the settings with which a detector of random weights sees as many objects as there may be."""
    detector = {"model_type": "grounding-dino", "text_config": {"vocab_size": vocab_size}}
    return {"detector_config": detector, "max_regions": REGIONS, "box_threshold": 0.0, "text_threshold": 0.0}


def build_refiner(shape: Shape | str, device: torch.device) -> LyricsVisualRefiner:
    """A refiner with random weights."""
    tokenizer = build_bert_tokenizer()
    refiner = LyricsVisualRefiner(refiner_config(shape, len(tokenizer))).to(device)
    refiner.tokenizer = tokenizer
    return refiner


def draw_pictures(count: int, width: int = 320, height: int = 320) -> list[Image.Image]:
    """Noise."""
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)) for _ in range(count)]


# ------------------------------------------------------------------------------------------------- beside a script


def write_script(refiner: LyricsVisualRefiner, tags: list[str]) -> Callable[[Image.Image], tuple[Any, Any]]:
    """Return what a Grounded-SAM script does with the refiner's own detector and segmenter, as Transformers documents.

    It keeps as many of the best boxes as the refiner keeps objects, and returns them with their masks.
    """
    detecting = GroundingDinoProcessor(GroundingDinoImageProcessorPil(), refiner.tokenizer)
    outlining = SamProcessor(SamImageProcessorPil())
    text = ". ".join(tags) + "."

    @torch.no_grad()
    def run(picture: Image.Image) -> tuple[Any, Any]:
        inputs = detecting(images=picture, text=text, return_tensors="pt")
        output = refiner.detector(**inputs)
        found = detecting.post_process_grounded_object_detection(
            output, inputs["input_ids"], threshold=0.0, text_threshold=0.9, target_sizes=[picture.size[::-1]]
        )[0]
        best = found["scores"].argsort(descending=True)[: refiner.config.max_regions]
        boxes = found["boxes"][best]
        prompts = outlining(picture, input_boxes=[boxes.tolist()], return_tensors="pt")
        segmented = refiner.segmenter(
            **{name: prompts[name] for name in ("pixel_values", "input_boxes")}, multimask_output=False
        )
        sizes = prompts["original_sizes"], prompts["reshaped_input_sizes"]
        return boxes, outlining.image_processor.post_process_masks(segmented.pred_masks, *sizes)[0]

    return run


def compare(arguments: argparse.Namespace, device: torch.device) -> None:
    """Refine one image of 640 x 480, and run the script on it: the same weights and tags, as many objects.

    The script runs in float32, as it is usually written. So does the refiner; then in bfloat16, if the machine computes
    in it (`--dtype auto`); and then a refiner of other, faster parts (`LyricsRefinerConfig.fast`) in the same dtype.
    """
    torch.manual_seed(0)
    refiner = build_refiner(SAM[arguments.sam], device)
    picture, tags = draw_pictures(1, 640, 480)[0], list(TAGS[:ASKED])

    def refining(one: LyricsVisualRefiner) -> Callable[[], Any]:
        return partial(one.refine, [picture], tags, return_masks=True, progress=False)

    steps = {"the same parts": refining(refiner), "script": partial(write_script(refiner, tags), picture)}
    dtype = native_dtype(device)
    config = LyricsRefinerConfig.fast(tagger_config=None, **_seeing_all(len(refiner.tokenizer)))
    fast = LyricsVisualRefiner(config).to(device, dtype)
    fast.tokenizer = refiner.tokenizer
    if dtype != torch.float32:
        steps["the same parts in bfloat16"] = refining(copy.deepcopy(refiner).to(dtype))
    steps[f"fast parts in {str(dtype).removeprefix('torch.')}"] = refining(fast)
    flop = {name: count_flop(step) / 1e9 for name, step in steps.items()}
    timings = take_turns(steps, arguments.repeats, device)
    script, rows = timings.pop("script"), []
    for name, timing in timings.items():
        spread = max(timing.spread, script.spread)
        rows.append(Row(name, timing.processor_median, script.processor_median, "s", 2.0, spread))
        rows.append(Row(f"{name}: operations", flop[name], flop["script"], "GFLOP"))
    title = (
        f"One image of 640 x 480 without the tagger; the script: Grounding DINO-T and SAM {arguments.sam} in "
        f"float32, random weights, at most {REGIONS} objects with their masks"
    )
    report(title, name_machine(device), rows, arguments.json)


# ---------------------------------------------------------------------------------------------------------- parts


def measure_parts(arguments: argparse.Namespace, device: torch.device) -> None:
    """Run each part on an image of 640 x 480, and print its line of the table in `docs/refiner.md`."""
    picture, tags = draw_pictures(1, 640, 480)[0], [list(TAGS[:ASKED])]
    print(f"{ASKED} tags, {REGIONS} objects, random weights. {name_machine(device)}\n")
    print("| part | processor time of an image | GFLOP | weights in float32 | memory beside them |")
    print("|---|---:|---:|---:|---:|", flush=True)
    for name in arguments.only or [name for name in PARTS if name != EDGE_TAM or find_spec("timm")]:
        torch.manual_seed(0)
        part, step = _build_part(PARTS[name](len(build_bert_tokenizer())), picture, tags, device)
        size = sum(one.numel() * one.element_size() for one in part.parameters())
        with torch.no_grad():
            flop, memory = count_flop(step), peak_bytes(step, device)
            seconds = take_turns({name: step}, 1, device)[name].processor_median
        values = f"{seconds:.1f} s | {flop / 1e9:,.0f} | {size / 1e6:,.0f} MB | {memory / 1e6:,.0f} MB"
        print(f"| {name} | {values} |", flush=True)


def _build_part(
    config: LyricsRefinerConfig, picture: Image.Image, tags: list[list[str]], device: torch.device
) -> tuple[Any, Callable[[], Any]]:
    """Return the large part of a refiner, and the function that runs it on an image."""
    refiner = LyricsVisualRefiner(config).to(device)
    refiner.tokenizer = build_bert_tokenizer()
    views = refiner.preprocess([picture])
    if config.tagger_config is not None:
        return refiner.tagger, partial(refiner._tag, views["tagger_pixel_values"])
    if config.segmenter_config is None:
        return refiner.detector, partial(refiner.refine, [picture], tags, progress=False)
    corners = torch.rand(REGIONS, 2, 2, device=device).sort(dim=1).values
    boxes = [corners.reshape(REGIONS, 4).clamp(0.01, 0.99)]
    inputs = views["segmenter_pixel_values"], views["segmenter_sizes"]
    return refiner.segmenter, partial(refiner._outline, boxes, *inputs, None)


def _segmenting(**segmenter: Any) -> Callable[[int], LyricsRefinerConfig]:
    """Return a refiner's configuration of whose parts only the segmenter is large."""

    def build(vocab_size: int) -> LyricsRefinerConfig:
        micro = micro_refiner_config(vocab_size)
        return LyricsRefinerConfig(detector_config=micro.detector_config, segmenter_config=segmenter)

    return build


def _sam(width: int, layers: int, heads: int) -> dict[str, Any]:
    vision = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "global_attn_indexes": [layers * quarter // 4 - 1 for quarter in (1, 2, 3, 4)],
        "mlp_dim": 4 * width,
    }
    return {"model_type": "sam", "vision_config": vision}


def _detecting(**fields: Any) -> Callable[[int], LyricsRefinerConfig]:
    def build(vocab_size: int) -> LyricsRefinerConfig:
        detector = {"model_type": "grounding-dino", "text_config": {"vocab_size": vocab_size}}
        return LyricsRefinerConfig(detector_config=detector, region_feature_type="detection", **fields)

    return build


def _tagging(vocab_size: int) -> LyricsRefinerConfig:
    micro, labels = micro_refiner_config(vocab_size), {number: f"tag {number}" for number in range(4585)}
    tagger = RamConfig(id2label=labels, label2id={label: number for number, label in labels.items()})
    return LyricsRefinerConfig(
        tagger_config=tagger.to_dict(), detector_config=micro.detector_config, segmenter_config=micro.segmenter_config
    )


def _edge_tam() -> dict[str, Any]:
    # Transformers' own default misspells "architecture", and so builds a ResNet that does not fit
    arguments = {"features_only": True, "in_chans": 3, "out_indices": [0, 1, 2, 3]}
    encoder = {"model_type": "timm_wrapper", "architecture": "repvit_m1", "num_classes": 2, "model_args": arguments}
    return {
        "model_type": "edgetam",
        "vision_config": {"model_type": "edgetam_vision_model", "backbone_config": encoder},
    }


EDGE_TAM = "EdgeTAM"  # needs timm
PARTS: dict[str, Callable[[int], LyricsRefinerConfig]] = {
    "RAM, Swin-L at 384": _tagging,
    "Grounding DINO-T at 800": _detecting(),
    "Grounding DINO-T at 640": _detecting(detector_shortest_edge=640, detector_longest_edge=1066),
    EDGE_TAM: _segmenting(**_edge_tam()),
    "SAM 2.1 tiny": _segmenting(model_type="sam2"),
    "SAM ViT-B": _segmenting(**_sam(*SAM["ViT-B"])),
    "SAM ViT-L": _segmenting(**_sam(*SAM["ViT-L"])),
    "SAM ViT-H": _segmenting(**_sam(*SAM["ViT-H"])),
}


# -------------------------------------------------------------------------------------------------- preprocessing


def measure_preprocessing(arguments: argparse.Namespace, device: torch.device) -> None:
    """Measure the views of one image of 640 x 480 for a refiner of the published parts."""
    config = LyricsRefinerConfig.fast()
    segmenter = LyricsRefinerConfig().segmenter_config
    micro = micro_refiner_config(2000)
    refiner = LyricsVisualRefiner(micro)
    picture = draw_pictures(1, 640, 480)
    kinds = {
        "RAM, Grounding DINO at 800 and SAM, resized by Pillow": (segmenter, 800, 1333, "pil"),
        "RAM, Grounding DINO at 800 and SAM, resized by torch": (segmenter, 800, 1333, "torch"),
        "RAM, Grounding DINO at 640 and SAM 2, resized by torch": (config.segmenter_config, 640, 1066, "torch"),
    }
    content = io.BytesIO()
    draw_table(640, 480).save(content, "JPEG", quality=85)
    reading = take_turns({"read": lambda: read_picture(content.getvalue(), 10**8)}, 3 * arguments.repeats, device)
    read = reading["read"]
    rows = [Row("a JPEG file decoded and hashed", 1000 * read.processor_median, None, "ms", spread=read.spread)]
    for name, (outlining, shortest, longest, backend) in kinds.items():
        micro.segmenter_config, micro.tagger_config, micro.resize_backend = outlining, config.tagger_config, backend
        micro.detector_shortest_edge, micro.detector_longest_edge = shortest, longest
        timing = take_turns({"views": partial(refiner.preprocess, picture)}, 3 * arguments.repeats, device)["views"]
        rows.append(Row(f"views of {name}", 1000 * timing.processor_median, None, "ms", "<= 20", spread=timing.spread))
    report("Preprocessing of an image of 640 x 480, one thread", name_machine(device), rows, arguments.json)


# ---------------------------------------------------------------------------------------------------------- batches


def measure_batches(arguments: argparse.Namespace, device: torch.device) -> None:
    """Print images a second in batches and one by one, and the segmenter's memory with 100 boxes."""
    refiner, pictures = build_refiner("micro", device), draw_pictures(16)
    steps: dict[str, Callable[[], Any]] = {
        name: partial(refiner.refine, pictures, batch_size=size, progress=False)
        for name, size in (("batched", 8), ("one by one", 1))
    }
    times = measure(steps, arguments.repeats, device)
    print(f"| images a second, batched | {16 / times['batched']:.1f} | {16 / times['one by one']:.1f} one by one |")
    views, few = refiner.preprocess(pictures[:1]), refiner.config.boxes_per_batch

    def outline(count: int) -> None:
        corners = torch.rand(count, 2, 2, device=device).sort(dim=1).values
        boxes = [corners.reshape(count, 4).clamp(0.01, 0.99)]
        with torch.no_grad():
            refiner._outline(boxes, views["segmenter_pixel_values"], views["segmenter_sizes"], None)

    hundred, one = (peak_bytes(partial(outline, count), device) / 2**20 for count in (100, few))
    print(f"| segmenter's peak memory, 100 boxes | {hundred:.0f} MB | {one:.0f} MB with {few} boxes |")


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--repeats", type=int, default=5, help="of each step (default: 5)")
    parser.add_argument("--threads", type=int, help="of the processor")
    add_json_option(parser)
    kinds = parser.add_subparsers(dest="part", required=True)
    comparing = kinds.add_parser("compare")
    comparing.add_argument("--sam", choices=SAM, default="ViT-B", help="default: ViT-B")
    comparing.set_defaults(run=compare)
    parting = kinds.add_parser("parts")
    parting.add_argument("--only", nargs="+", choices=PARTS, help="default: all")
    parting.set_defaults(run=measure_parts)
    kinds.add_parser("preprocessing").set_defaults(run=measure_preprocessing)
    kinds.add_parser("batches").set_defaults(run=measure_batches)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.run(arguments, torch.device(arguments.device))


if __name__ == "__main__":
    main()
