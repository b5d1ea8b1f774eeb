"""The second turn about an image: how long it takes to prepare it, and until its answer begins.

The micro model prepares a conversation of two turns, whose image it has seen in the first. The peer of preparing is
Transformers' `LlavaProcessor` with the same tokenizer, image processor and chat template, which decodes and resizes the
image again, and has no objects to look for or to write. The peer of an answer is the same model without its caches;
before each answer all caches are emptied and the first turn is answered, which is not timed. So it is for another
question about the image, in a conversation of its own. All steps take turns; numbers are medians of processor time.

    python benchmarks/turns.py
    python benchmarks/turns.py --repeats 100 --json turns.json
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import Row, Timing, add_json_option, name_machine, report, take_turns
from PIL import Image
from transformers import LlavaProcessor

from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE, Lyrics
from lyrics.processing_lyrics import LyricsProcessor

GOAL = "<= 5"  # milliseconds
TURNS = (("user", "What color is the ring?"), ("assistant", "purple"), ("user", "Where is the red star?"))


def pictures_of(folder: Path) -> dict[str, Any]:
    """Return an image of each kind."""
    scene = Image.open(SCENE_PICTURE).convert("RGB")
    photograph = folder / "photograph.jpg"
    scene.resize((1920, 1440)).save(photograph)
    return {
        "path, PNG of 512 x 512": str(SCENE_PICTURE),
        "bytes, PNG of 512 x 512": SCENE_PICTURE.read_bytes(),
        "PIL image of 512 x 512": scene,
        "path, JPEG of 1920 x 1440": str(photograph),
    }


def conversation_about(picture: Any, turns: Sequence[tuple[str, str]] = TURNS) -> list[dict[str, Any]]:
    """Return the messages of a conversation about an image, by default two turns as far as the second question."""
    messages: list[dict[str, Any]] = [
        {"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns
    ]
    messages[0]["content"].insert(0, {"type": "image", "image": picture})
    return messages


def prepare(processor: Any, messages: list[dict[str, Any]]) -> Any:
    """Prepare a conversation."""
    return processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )


def build_llava(processor: LyricsProcessor) -> LlavaProcessor:
    """Return a processor of LLaVA of the same parts; its patches make about as many image tokens."""
    side = processor.image_processor.size["height"]
    return LlavaProcessor(
        processor.image_processor,
        processor.tokenizer,
        patch_size=max(1, round(side / processor.num_query_tokens**0.5)),
        vision_feature_select_strategy="full",
        chat_template=processor.chat_template,
    )


def measure_preparing(assistant: Lyrics, pictures: dict[str, Any], repeats: int) -> list[Row]:
    """Compare the preparing of a second turn with LLaVA's."""
    processor = assistant.processor
    llava = build_llava(processor)
    steps: dict[str, Callable[[], Any]] = {}
    for name, picture in pictures.items():
        prepare(processor, conversation_about(picture, TURNS[:1]))
        steps[f"ours, {name}"] = partial(prepare, processor, conversation_about(picture))
        if not isinstance(picture, bytes):  # LLaVA's processor takes no content of a file
            steps[f"peer, {name}"] = partial(prepare, llava, conversation_about(picture))
    times = take_turns(steps, repeats, torch.device("cpu"))
    rows = []
    for name in pictures:
        ours, peer = times[f"ours, {name}"], times.get(f"peer, {name}")
        rows.append(_row(f"second turn prepared: {name}; peer: LLaVA's processor", ours, peer, GOAL))
    return rows


def measure_answering(assistant: Lyrics, repeats: int) -> list[Row]:
    """Compare the first token of a second turn, and of another question, with a model that remembers nothing."""
    picture = Image.open(SCENE_PICTURE).convert("RGB")

    def begin() -> None:
        assistant.clear_caches()
        assistant.ask_messages(conversation_about(picture, TURNS[:1]))

    def answer(turns: Sequence[tuple[str, str]], forgets: bool) -> None:
        if forgets:
            assistant.clear_caches()
        assistant.ask_messages(conversation_about(picture, turns), max_new_tokens=1)

    asked = {"second turn": TURNS, "another question about the image": TURNS[-1:]}
    steps: dict[str, Callable[[], Any]] = {}
    for what, turns in asked.items():
        steps |= {what: partial(answer, turns, False), f"{what}, anew": partial(answer, turns, True)}
    times = take_turns(steps, repeats, torch.device("cpu"), before=begin)
    return [
        _row(f"{what}, until its first token; peer: without caches", times[what], times[f"{what}, anew"], None)
        for what in asked
    ]


def _row(what: str, ours: Timing, peer: Timing | None, goal: str | None) -> Row:
    spread = max(ours.spread, 0.0 if peer is None else peer.spread)
    theirs = None if peer is None else 1000 * peer.processor_median
    return Row(what, 1000 * ours.processor_median, theirs, "ms", goal, spread)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40, help="of each step (default: 40)")
    add_json_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, Lyrics.from_pretrained(MICRO_CHECKPOINT) as assistant:
        rows = measure_preparing(assistant, pictures_of(Path(folder)), arguments.repeats)
        rows += measure_answering(assistant, max(1, arguments.repeats // 4))
    report("The second turn about an image, micro model", name_machine(torch.device("cpu")), rows, arguments.json)


if __name__ == "__main__":
    main()
