"""`lyrics ask`: one question about one image."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    add_command,
    add_font_argument,
    add_model_arguments,
    choose_device,
    describe_objects,
    load_processor,
    on_one_line,
    positive_int,
    printable,
    require_font,
    require_picture_file,
)

if TYPE_CHECKING:
    from lyrics import LyricsAttribution, LyricsProcessor, VisualObjects

EXAMPLES = """examples:
  lyrics ask scene.png "What color is the ring?"   # with the micro model, which ships with the package
  lyrics ask photo.jpg "What is on the table?" --model DIR
  lyrics ask photo.jpg "Where is the cat?" --model DIR --save seen.png --json
  lyrics ask photo.jpg "How many cats are there?" --model DIR --why why.png
  lyrics ask photo.jpg "And the dog?" --model DIR --objects photo.objects.safetensors
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = "Answer a question about an image, and show the objects that the model looked at."
    parser = add_command(commands, "ask", "ask a question about an image", description, EXAMPLES)
    parser.add_argument("image", metavar="IMAGE", help="path or URL of an image")
    parser.add_argument("question", metavar="QUESTION", help="the question, in quotation marks")
    parser.add_argument("--objects", metavar="FILE", type=Path, help="objects that `lyrics refine --out` wrote")
    parser.add_argument(
        "--save",
        metavar="OVERLAY.png",
        type=Path,
        help="write the image with the boxes of the answer and of the objects",
    )
    parser.add_argument(
        "--why", metavar="WHY.png", type=Path, help="write the image with the objects that the answer attended to"
    )
    parser.add_argument(
        "--max-new-tokens", metavar="N", type=positive_int, default=256, help="longest answer (default: 256)"
    )
    add_font_argument(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer, and print what was seen."""
    if not arguments.question.strip():
        raise ValueError("the question is empty.")
    for option, path in (("--save", arguments.save), ("--why", arguments.why)):
        require_picture_file(option, path, [arguments.image])
    if arguments.save is not None and arguments.save == arguments.why:
        raise ValueError(f"--save and --why are the same file, {arguments.save}.")
    require_font(arguments.font)
    import torch

    from lyrics import LyricsForConditionalGeneration, VisualObjects, attribute_answer, describe_provenance
    from lyrics.utils.atomic_files import naming_disk_errors

    given = VisualObjects.load(arguments.objects) if arguments.objects else None
    processor = load_processor(arguments)
    image = processor.load_pictures(arguments.image)[0]
    objects = processor.refine(image)[0] if given is None else given  # objects may be none at all
    model: Any = LyricsForConditionalGeneration.from_pretrained(arguments.model, dtype=arguments.dtype or "auto")
    model.to(choose_device(arguments.device))
    inputs = prepare_question(processor, image, arguments.question, objects).to(model.device)
    with torch.inference_mode():
        generated = model.generate(**inputs, max_new_tokens=arguments.max_new_tokens, do_sample=False)
    answer = processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    answer_boxes = describe_boxes(processor, answer)
    if arguments.save:
        with naming_disk_errors(arguments.save):
            processor.visualize(image, objects, answer, font=arguments.font).save(arguments.save)
    why = None
    if arguments.why:
        why = attribute_answer(model, inputs, generated)
        weights = why.region_weights()[0].tolist()
        with naming_disk_errors(arguments.why):
            processor.visualize_attention(image, objects, weights, arguments.font).save(arguments.why)
    if arguments.json:
        result = {
            "image": arguments.image,
            "question": arguments.question,
            "answer": answer,
            "answer_boxes": answer_boxes,
            **describe_provenance(model, processor, objects),
            "overlay": str(arguments.save) if arguments.save else None,
            "why": None if why is None else describe_why(why, objects, str(arguments.why)),
        }
        print(json.dumps(result, ensure_ascii=False, indent=2))
        return 0
    print(f"Answer: {printable(answer)}")
    print(describe_objects(objects))
    if arguments.save:
        of_answer = "the answer's boxes, and thin ones of the objects" if answer_boxes else "the objects' boxes"
        print(on_one_line(f"Image with {of_answer}: {arguments.save}"))
    if arguments.why:
        print(on_one_line(f"Image with the objects that the answer attended to: {arguments.why}"))
    return 0


def describe_boxes(processor: LyricsProcessor, answer: str) -> list[dict[str, Any]]:
    """Return labels and boxes that an answer holds."""
    grounded = processor.post_process_grounding(answer)[0]
    return [
        {"label": label, "box": [round(float(value), 4) for value in box]}
        for label, box in zip(grounded["labels"], grounded["boxes"], strict=True)
    ]


def describe_why(why: LyricsAttribution, objects: VisualObjects, picture: str) -> dict[str, Any]:
    """Return the weight of each object in the answer, largest first, and of each grounding query."""
    weights = why.region_weights()[0].tolist()
    order = sorted(range(len(objects)), key=lambda index: -weights[index])
    return {
        "picture": picture,
        "objects": [{"object": index, "label": objects.labels[index], "weight": weights[index]} for index in order],
        "queries": why.query_weights[0].tolist(),
    }


def prepare_question(processor: LyricsProcessor, image: Any, question: str, objects: VisualObjects) -> Any:
    """Return the model inputs of one question about one image."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"visual_objects": [objects]},
    )
