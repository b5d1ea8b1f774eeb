"""Questions of the controls, the answers to them, and what guessing gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....processing_lyrics import LyricsProcessor, VisualObjects
from ..evaluate import encode_conversations, guess
from ..refiner.segmenter import SHIFT_PROBABILITY, shift_hues
from ..world.appearance import nearest_color
from ..world.cases import Case, answer_in_batches, draw_cases
from ..world.datasets import boxes_as_text
from ..world.objects import HELD_OUT, Scene
from ..world.questions import Question, combination, novelty
from ..world.scenes import draw_scene, draw_test_scene
from ..world.second import draw_second_scene
from .sights import Seen

HELD_OUT_KINDS = ("existence", "color", "shape", "referring")
OWN, SECOND, HELD_OUT_SET = "own", "second", "held_out"
DRAWS: Mapping[str, Callable[[int], Scene]] = {
    OWN: draw_test_scene,
    SECOND: draw_second_scene,
    HELD_OUT_SET: draw_test_scene,
}
TITLES: Mapping[str, str] = {OWN: "own world", SECOND: "second world", HELD_OUT_SET: "held-out combinations"}

Bits = dict[str, str]  # kind of question -> one character for each question, 1 if its answer is right
_REFINED_AT_ONCE = 16


def draw_questions(name: str, per_kind: int, held_out: int, first: int) -> list[Case]:
    """Draw a set of questions about test scenes.

    Args:
        name: key of `DRAWS`.
        per_kind: number of questions of each kind about a world.
        held_out: number of questions of each of `HELD_OUT_KINDS` that name a color and a shape that training scenes
            never show together.
        first: number of the first scene.
    """
    if name != HELD_OUT_SET:
        return draw_cases(per_kind, DRAWS[name], first=first)
    return draw_cases(held_out, DRAWS[name], HELD_OUT_KINDS, first=first, accept=_is_held_out)


def _is_held_out(question: Question) -> bool:
    return novelty(question) == "held out"


def refine_scenes(
    processor: LyricsProcessor, draw: Callable[[int], Scene], numbers: Sequence[int], folder: Path
) -> dict[int, VisualObjects]:
    """Return what the refiner finds in scenes. It is kept in a folder, so that it is computed once."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {number: folder / f"{number}.safetensors" for number in numbers}
    missing = [number for number, file in files.items() if not file.is_file()]
    for start in range(0, len(missing), _REFINED_AT_ONCE):
        some = missing[start : start + _REFINED_AT_ONCE]
        pictures: Any = [draw(number).image for number in some]
        for number, objects in zip(some, processor.refine(pictures, batch_size=len(some), progress=False), strict=True):
            objects.save(files[number])
    return {number: VisualObjects.load(file) for number, file in files.items()}


@torch.inference_mode()
def answer_seen(
    model: Any, processor: LyricsProcessor, cases: Sequence[Case], seen: Callable[[int], Seen], batch_size: int = 32
) -> Bits:
    """Answer questions by greedy decoding, and return which answers are right, by kind.

    Args:
        model: `LyricsForConditionalGeneration`.
        processor: processor of the model.
        cases: questions with their scenes.
        seen: function from the number of a scene to what the model sees of it.
        batch_size: number of questions in a batch.
    """

    def answer(batch: Sequence[Case]) -> list[str]:
        sights = [seen(case.number) for case in batch]
        objects: Any = [sight.objects for sight in sights]
        conversations = [_converse(case, sight) for case, sight in zip(batch, sights, strict=True)]
        inputs = encode_conversations(processor, conversations, None if None in objects else objects)
        inputs = inputs.to(model.device)
        generated = model.generate(**inputs, max_new_tokens=40, do_sample=False)
        return processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    bits: Bits = {}
    by_kind = sorted(cases, key=lambda case: case.question.kind)  # answers of a batch are then about equally long
    for outcome in answer_in_batches(by_kind, batch_size, answer):
        kind = outcome.case.question.kind
        bits[kind] = bits.get(kind, "") + str(int(outcome.correct))
    return bits


def _converse(case: Case, sight: Seen) -> list[dict[str, Any]]:
    """Return the messages up to the question, with what the model sees in the first."""
    first, *others = boxes_as_text(case.question.messages()[:-1])
    return [{"role": "user", "content": [*show(sight), *first["content"]]}, *others]


def show(sight: Seen) -> list[dict[str, Any]]:
    """Return what a model sees as blocks of a message."""
    if sight.image is None:
        return [{"type": "text", "text": f"{sight.text}\n"}]
    return [{"type": "image", "image": sight.image}]


def guess_answers(cases: Sequence[Case]) -> dict[str, Bits]:
    """Return which answers of two guessing baselines are right, by baseline and kind, see `guessing_accuracies`."""
    return {
        name: {kind: "".join(str(int(one)) for one in values) for kind, values in of_kinds.items()}
        for name, of_kinds in guess(cases).items()
    }


def count_combinations(scenes: int) -> dict[str, dict[str, int]]:
    """Count objects that look like a held-out combination in training scenes, plain and with shifted hues.

    No training scene is drawn with such a combination. But light changes colors, and the segmenter is trained on scenes
    whose hues are all shifted, in which a red cross may look purple.

    Args:
        scenes: number of training scenes to look at.

    Returns:
        By combination, such as `purple cross`, the number of objects in `plain` scenes, and in as many `tinted` ones as
        the segmenter saw among them.
    """
    counts = {"plain": Counter[str](), "tinted": Counter[str]()}
    for number in range(scenes):
        scene, random = draw_scene("train", number), np.random.default_rng((number, 9))
        pictures = {"plain": scene.image}
        if random.random() < SHIFT_PROBABILITY:
            pictures["tinted"] = shift_hues(scene.image, random)
        for kind, picture in pictures.items():
            pixels = np.asarray(picture, np.float64)
            for thing in scene.objects:
                looks = nearest_color(np.median(pixels[thing.mask], axis=0))
                if (looks, thing.shape) in HELD_OUT:
                    counts[kind][f"{looks} {thing.shape}"] += 1
    names = [f"{color} {shape}" for color, shape in sorted(HELD_OUT)]
    return {name: {kind: counted[name] for kind, counted in counts.items()} for name in names}


def combinations_of(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Return the combination that each question names, by kind."""
    named: dict[str, list[str]] = {}
    for case in cases:
        named.setdefault(case.question.kind, []).append(" ".join(combination(case.question) or ()))
    return named
