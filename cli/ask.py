"""`lyrics ask`: one question about one picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from lyrics.modeling_lyrics import (
    LyricsAttribution,
    LyricsForConditionalGeneration,
    attribute_answer,
    describe_provenance,
)
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects

from .common import DTYPES, add_model_arguments, choose_device, describe_objects, load_processor, printable

EXAMPLES = """examples:
  lyrics ask scene.png "What color is the ring?"   # with the micro model, which ships with the package
  lyrics ask photo.jpg "What is on the table?" --model DIR
  lyrics ask photo.jpg "Where is the cat?" --model DIR --save seen.png --json
  lyrics ask photo.jpg "How many cats are there?" --model DIR --why why.png
  lyrics ask photo.jpg "And the dog?" --model DIR --objects photo.objects.safetensors
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "ask",
        help="ask a question about a picture",
        description="Answer a question about a picture, and show the objects that the model looked at.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", metavar="IMAGE", help="a picture's path or URL")
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("--objects", metavar="FILE", type=Path, help="objects that `lyrics refine --out` wrote")
    parser.add_argument("--save", metavar="OVERLAY.png", type=Path, help="write the picture with the objects' boxes")
    parser.add_argument(
        "--why", metavar="WHY.png", type=Path, help="write the picture with the objects that the answer attended to"
    )
    parser.add_argument("--max-new-tokens", metavar="N", type=int, default=256, help="longest answer (default: 256)")
    add_model_arguments(parser, micro=True)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer, and print what was seen."""
    if arguments.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens must be at least 1, got {arguments.max_new_tokens}.")
    processor = load_processor(arguments)
    picture = processor.load_pictures(arguments.image)[0]
    objects = VisualObjects.load(arguments.objects) if arguments.objects else processor.refine(picture)[0]
    dtype = DTYPES.get(arguments.dtype, "auto")
    model: Any = LyricsForConditionalGeneration.from_pretrained(arguments.model, dtype=dtype)
    model.to(choose_device(arguments.device))
    inputs = prepare_question(processor, picture, arguments.question, objects).to(model.device)
    with torch.inference_mode():
        generated = model.generate(**inputs, max_new_tokens=arguments.max_new_tokens, do_sample=False)
    answer = processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    if arguments.save:
        processor.visualize(picture, objects).save(arguments.save)
    why = None
    if arguments.why:
        why = attribute_answer(model, inputs, generated)
        processor.visualize_attention(picture, objects, why.region_weights()[0].tolist()).save(arguments.why)
    if arguments.json:
        result = {
            "image": arguments.image,
            "question": arguments.question,
            "answer": answer,
            "answer_boxes": describe_boxes(processor, answer),
            **describe_provenance(model, processor, objects),
            "overlay": str(arguments.save) if arguments.save else None,
            "why": None if why is None else describe_why(why, objects, str(arguments.why)),
        }
        print(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        print(f"Answer: {printable(answer)}")
        print(describe_objects(objects))
        if arguments.save:
            print(f"Picture with the objects' boxes: {arguments.save}")
        if arguments.why:
            print(f"Picture with the objects that the answer attended to: {arguments.why}")
    return 0


def describe_boxes(processor: LyricsProcessor, answer: str) -> list[dict[str, Any]]:
    """Labels and boxes that an answer holds."""
    grounded = processor.post_process_grounding(answer)[0]
    return [
        {"label": label, "box": [round(float(value), 4) for value in box]}
        for label, box in zip(grounded["labels"], grounded["boxes"], strict=True)
    ]


def describe_why(why: LyricsAttribution, objects: VisualObjects, picture: str) -> dict[str, Any]:
    """Weights of the objects in the answer, largest first, and of each grounding query."""
    weights = why.region_weights()[0].tolist()
    order = sorted(range(len(objects)), key=lambda index: -weights[index])
    return {
        "picture": picture,
        "objects": [{"object": index, "label": objects.labels[index], "weight": weights[index]} for index in order],
        "queries": why.query_weights[0].tolist(),
    }


def prepare_question(processor: LyricsProcessor, picture: Any, question: str, objects: VisualObjects) -> Any:
    """The inputs of one question about a picture."""
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"visual_objects": [objects]},
    )
