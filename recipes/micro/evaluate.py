"""Step 7: how often a model's answers about test scenes are right, by question type, and what guessing would give."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ...modeling_lyrics import LyricsForConditionalGeneration
from ...processing_lyrics import LyricsProcessor, VisualObjects
from ...processing_lyrics.spatial_text import parse_spatial_text
from .ablations import VARIANTS, Variant
from .world.datasets import boxes_as_text
from .world.questions import Question, ask, novelty
from .world.scenes import Scene, Split, draw_scene

KINDS = ("existence", "count", "color", "shape", "relation", "reading", "referring", "description")
LEAST_OVERLAP = 0.5
_GUESSES_FROM = 2000  # training scenes whose answers the guessing baselines know


@dataclass(frozen=True)
class Case:
    """A question, the number of its scene, and the scene."""

    number: int
    scene: Scene
    question: Question


@dataclass(frozen=True)
class Outcome:
    """A case with an answer to it.

    Attributes:
        right: whether the answer is.
    """

    case: Case
    answer: str
    right: bool


def draw_cases(per_kind: int, split: Split = "test", kinds: Sequence[str] = KINDS) -> list[Case]:
    """`per_kind` questions of each kind, one of a kind to a scene, on the first scenes of a split that allow them."""
    wanted = dict.fromkeys(kinds, per_kind)
    cases: list[Case] = []
    number = 0
    while any(wanted.values()):
        scene, random = draw_scene(split, number), np.random.default_rng((number, 4))
        for kind in kinds:
            question = ask(scene, kind, random)
            if wanted[kind] and question is not None:
                cases.append(Case(number, scene, question))
                wanted[kind] -= 1
        number += 1
    return cases


def evaluate_checkpoint(
    checkpoint: Path, out: Path, variant: Variant = VARIANTS["full"], per_kind: int = 500, split: Split = "test"
) -> dict[str, Any]:
    """Ask a model about scenes; writes `results.json`, and every answer into `answers.jsonl`.

    Args:
        checkpoint: model, processor and refiner.
        out: a folder.
        variant: as which the model sees objects.
        per_kind: questions of each kind.
        split: of the scenes.
    """
    model = LyricsForConditionalGeneration.from_pretrained(checkpoint)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    processor = LyricsProcessor.from_pretrained(checkpoint).to(device=model.device)
    cases = draw_cases(per_kind, split)
    outcomes = answer_cases(model, processor, cases, variant)
    results = {
        "accuracy": accuracies(outcomes),
        "by_objects": _accuracies_by(outcomes, lambda outcome: len(outcome.case.scene.objects)),
        "by_size": _accuracies_by(outcomes, _size_of),
        "by_combination": _accuracies_by(outcomes, lambda outcome: novelty(outcome.case.question)),
        "guessing": guess(cases),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    lines = [
        json.dumps({"scene": one.case.number, **asdict(one.case.question), "answered": one.answer, "right": one.right})
        for one in outcomes
    ]
    (out / "answers.jsonl").write_text("\n".join(lines) + "\n")
    return results


def _size_of(outcome: Outcome) -> str | None:
    """The size of the object in question, where the question is about one and tells it apart by its box."""
    box = outcome.case.question.box
    return next((thing.size for thing in outcome.case.scene.objects if thing.box == box), None)


def _accuracies_by(outcomes: Sequence[Outcome], key: Callable[[Outcome], Any]) -> dict[str, dict[str, float]]:
    groups: dict[Any, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if (value := key(outcome)) is not None:
            groups[value].append(outcome)
    return {str(value): accuracies(groups[value]) for value in sorted(groups)}


@torch.inference_mode()
def answer_cases(
    model: Any,
    processor: Any,
    cases: Sequence[Case],
    variant: Variant = VARIANTS["full"],
    batch_size: int = 32,
    max_new_tokens: int = 40,
) -> list[Outcome]:
    """Ask each question on its own, greedily.

    Args:
        model, processor: of a checkpoint.
        cases: whose scenes are refined once each.
        variant: as which the model sees objects.
        batch_size: questions at a time.
        max_new_tokens: longest answer.
    """
    scenes = {case.number: case.scene.image for case in cases}
    refined: dict[int, VisualObjects | None] = dict.fromkeys(scenes)
    if processor.has_refiner or processor.store is not None:
        seen = map(variant.view, processor.refine(list(scenes.values()), batch_size=16))
        refined = dict(zip(scenes, seen, strict=True))
    outcomes = []
    for start in logging.tqdm(range(0, len(cases), batch_size), desc="Answering"):
        batch = cases[start : start + batch_size]
        conversations = [conversation(case) for case in batch]
        objects = [refined[case.number] for case in batch]
        inputs = processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True} | ({} if None in objects else {"visual_objects": objects}),
        ).to(model.device)
        generated = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        texts = processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for case, text in zip(batch, texts, strict=True):
            outcomes.append(Outcome(case, text.strip(), is_right(case.question, text)))
    return outcomes


def conversation(case: Case) -> list[dict[str, Any]]:
    """One turn of the user, with the picture and the question."""
    asked = boxes_as_text(case.question.messages()[:1])[0]
    return [{"role": "user", "content": [{"type": "image", "image": case.scene.image}, *asked["content"]]}]


def is_right(question: Question, answer: str) -> bool:
    """Whether an answer says the same; a box must overlap the right one by half (IoU)."""
    if question.kind != "referring":
        return answer.strip().rstrip(".").lower() == question.answer.lower()
    found = parse_spatial_text(answer).objects
    return len(found) > 0 and overlap(found[0].box, question.box or ()) >= LEAST_OVERLAP


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes, xyxy."""
    first, second = np.asarray(one, float), np.asarray(other, float)
    sides = (np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])).clip(min=0)
    shared = sides.prod()
    both = (first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - shared
    return float(shared / max(both, 1e-9))


def accuracies(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Share of right answers in percent, of each kind."""
    right: dict[str, list[bool]] = defaultdict(list)
    for outcome in outcomes:
        right[outcome.case.question.kind].append(outcome.right)
    return {kind: 100 * float(np.mean(values)) for kind, values in right.items()}


def guess(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """What guessing would give, in percent of each kind: the majority's answer, and that of a random training question.

    The box of the majority is the mean of the boxes.
    """
    known: dict[str, list[Question]] = defaultdict(list)
    for number in range(_GUESSES_FROM):
        scene, random = draw_scene("train", number), np.random.default_rng((number, 4))
        for kind in KINDS:
            if (question := ask(scene, kind, random)) is not None:
                known[kind].append(question)
    random = np.random.default_rng(0)
    right: dict[str, dict[str, list[bool]]] = {"majority": defaultdict(list), "random": defaultdict(list)}
    for case in cases:
        kind, others = case.question.kind, known[case.question.kind]
        drawn = others[int(random.integers(len(others)))]
        if kind == "referring":
            mean = np.array([question.box for question in others]).mean(axis=0).tolist()
            right["majority"][kind].append(overlap(mean, case.question.box or ()) >= LEAST_OVERLAP)
            right["random"][kind].append(overlap(drawn.box or (), case.question.box or ()) >= LEAST_OVERLAP)
        else:
            most = Counter(question.answer for question in others).most_common(1)[0][0]
            right["majority"][kind].append(most == case.question.answer)
            right["random"][kind].append(drawn.answer == case.question.answer)
    return {
        name: {kind: 100 * float(np.mean(values)) for kind, values in by_kind.items()}
        for name, by_kind in right.items()
    }
