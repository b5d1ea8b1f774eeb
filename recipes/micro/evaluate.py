"""Step 7: evaluate a model on questions about test scenes, and compare it with guessing baselines."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature

from ...modeling_lyrics import LyricsForConditionalGeneration
from ...processing_lyrics import LyricsProcessor, VisualObjects
from ...trainers.rewards import box_iou
from .ablations import VARIANTS, Variant
from .common.run_folders import RunFolders
from .world.cases import (
    KINDS,
    MIN_IOU,
    Case,
    Outcome,
    accuracies,
    answer_in_batches,
    draw_cases,
    mean_percentages,
)
from .world.questions import Question, ask, novelty
from .world.scenes import draw_scene

_BASELINE_SCENES = 2000  # training scenes whose answers the guessing baselines use


def evaluate_model(folders: RunFolders) -> None:
    """Evaluate the model of the second stage. Writes `results.json`, and every answer to `answers.jsonl`."""
    model = LyricsForConditionalGeneration.from_pretrained(folders.model("stage2"))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    processor = LyricsProcessor.from_pretrained(folders.model("stage2")).to(device=model.device)
    cases = draw_cases(**folders.settings("evaluation"))
    outcomes = answer_cases(model, processor, cases, folders.variant)
    results = {
        "accuracy": accuracies(outcomes),
        "by_objects": _accuracies_by(outcomes, lambda outcome: len(outcome.case.scene.objects)),
        "by_size": _accuracies_by(outcomes, _size_of),
        "by_combination": _accuracies_by(outcomes, lambda outcome: novelty(outcome.case.question)),
        "guessing": guessing_accuracies(cases),
    }
    out = folders.folder("evaluation")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    with (out / "answers.jsonl").open("w") as file:
        for outcome in outcomes:
            question = {"scene": outcome.case.number, **_write_down(outcome.case.question)}
            file.write(json.dumps(question | {"answered": outcome.answer, "right": outcome.correct}) + "\n")


def _write_down(question: Question) -> dict[str, Any]:
    """Return a question, without its object, as a dictionary that can be written as JSON."""
    names = ("kind", "text", "answer", "box", "variant")
    before = [_write_down(one) for one in question.before]
    return {name: getattr(question, name) for name in names} | ({"before": before} if before else {})


def _size_of(outcome: Outcome) -> str | None:
    """Return the size of the object whose box belongs to the question, or `None` if there is no box."""
    box = outcome.case.question.box
    return next((thing.size for thing in outcome.case.scene.objects if thing.box == box), None)


def _accuracies_by(outcomes: Sequence[Outcome], key: Callable[[Outcome], Any]) -> dict[str, dict[str, float]]:
    """Return the accuracies of groups of outcomes with the same key. `None` is no key."""
    groups: dict[Any, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if (value := key(outcome)) is not None:
            groups[value].append(outcome)
    return {str(value): accuracies(groups[value]) for value in sorted(groups)}


@torch.inference_mode()
def answer_cases(
    model: Any,
    processor: LyricsProcessor,
    cases: Sequence[Case],
    variant: Variant = VARIANTS["full"],
    batch_size: int = 32,
) -> list[Outcome]:
    """Answer each question in a conversation of its own, by greedy decoding.

    Args:
        model: `LyricsForConditionalGeneration` that answers.
        processor: processor of the model. It refines each scene once.
        cases: questions with their scenes.
        variant: variant of the model, which decides what it sees of the objects.
        batch_size: number of questions in a batch.
    """
    scenes = {case.number: case.scene.image for case in cases}
    refined: dict[int, VisualObjects] = {}
    if processor.has_refiner or processor.store is not None:
        objects = map(variant.view, processor.refine(list(scenes.values()), batch_size=16))
        refined = dict(zip(scenes, objects, strict=True))

    def answer(batch: Sequence[Case]) -> list[str]:
        objects = [refined[case.number] for case in batch] if refined else None
        inputs = encode_cases(processor, batch, objects).to(model.device)
        generated = model.generate(**inputs, max_new_tokens=40, do_sample=False)
        return processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return answer_in_batches(cases, batch_size, answer)


def encode_cases(
    processor: LyricsProcessor, cases: Sequence[Case], objects: Sequence[VisualObjects] | None
) -> BatchFeature:
    """Return the model inputs for the questions of cases, with the objects of their scenes, if there are any."""
    return encode_conversations(processor, [case.conversation() for case in cases], objects)


def encode_conversations(
    processor: LyricsProcessor, conversations: Sequence[Any], objects: Sequence[VisualObjects] | None
) -> BatchFeature:
    """Return the model inputs for conversations, with the objects of their images, if there are any."""
    return processor.apply_chat_template(
        list(conversations),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True} | ({} if objects is None else {"visual_objects": objects}),
    )


def guessing_accuracies(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Return the accuracies of two guessing baselines, in percent, see `guess`."""
    return {name: mean_percentages(of_kinds) for name, of_kinds in guess(cases).items()}


def guess(cases: Sequence[Case]) -> dict[str, dict[str, list[bool]]]:
    """Return which answers of two guessing baselines are right. They know the answers to training questions.

    `majority` gives the most frequent answer to questions of the kind, or the mean of their boxes. `random` gives the
    answer to a random question of the kind.
    """
    known, random = _training_questions(), np.random.default_rng(0)
    correct: dict[str, dict[str, list[bool]]] = {"majority": defaultdict(list), "random": defaultdict(list)}
    for case in cases:
        kind, others = case.question.kind, known[case.question.kind]
        guesses = {"majority": _majority(others), "random": others[int(random.integers(len(others)))]}
        for name, guessed in guesses.items():
            correct[name][kind].append(_has_same_answer(guessed, case.question))
    return {name: dict(of_kinds) for name, of_kinds in correct.items()}


@cache
def _training_questions() -> dict[str, list[Question]]:
    """Return questions about training scenes with their answers, by kind."""
    known: dict[str, list[Question]] = defaultdict(list)
    for number in range(_BASELINE_SCENES):
        scene, random = draw_scene("train", number), np.random.default_rng((number, 4))
        for kind in KINDS:
            if (question := ask(scene, kind, random, "plain")) is not None:
                known[kind].append(question)
    return known


def _majority(questions: Sequence[Question]) -> Question:
    """Return a question with the most frequent answer, or with the mean of the boxes for `"referring"`."""
    if questions[0].kind == "referring":
        x1, y1, x2, y2 = np.array([question.box for question in questions]).mean(axis=0).tolist()
        return replace(questions[0], box=(x1, y1, x2, y2))
    answers = Counter(question.answer for question in questions)
    return replace(questions[0], answer=answers.most_common(1)[0][0])


def _has_same_answer(guess: Question, question: Question) -> bool:
    """Return whether a question has the same answer as another of its kind, or about the same box."""
    if question.kind == "referring":
        return box_iou(guess.box or (), question.box or ()) >= MIN_IOU
    return guess.answer == question.answer
