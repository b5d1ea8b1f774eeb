"""Evaluation cases: questions about scenes, the model's answers to them, and their accuracy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers.utils import logging

from ....processing_lyrics.spatial_text import parse_spatial_text
from ....trainers.rewards import box_iou
from .datasets import boxes_as_text
from .objects import Scene
from .questions import Question, ask
from .scenes import draw_test_scene
from .wordings import Wording

KINDS = (
    *("existence", "count", "color", "shape", "size", "relation", "reading", "referring", "description"),
    *("premise", "outside", "follow_up"),
)
MIN_IOU = 0.5  # of a correct box with the true one


@dataclass(frozen=True)
class Case:
    """Question about a scene, with the scene and its number."""

    number: int
    scene: Scene
    question: Question

    def conversation(self) -> list[dict[str, Any]]:
        """Return the messages up to the question, the image in the first."""
        first, *others = boxes_as_text(self.question.messages()[:-1])
        image = {"type": "image", "image": self.scene.image}
        return [{"role": "user", "content": [image, *first["content"]]}, *others]


@dataclass(frozen=True)
class Outcome:
    """Case with the model's answer."""

    case: Case
    answer: str

    @property
    def correct(self) -> bool:
        """Whether the answer is correct."""
        return is_correct(self.case.question, self.answer)


def draw_cases(
    per_kind: int,
    draw: Callable[[int], Scene] = draw_test_scene,
    kinds: Sequence[str] = KINDS,
    wording: Wording = "plain",
    first: int = 0,
    accept: Callable[[Question], bool] | None = None,
) -> list[Case]:
    """Draw questions about scenes.

    Args:
        per_kind: number of questions of each kind. A scene gets at most one of a kind.
        draw: function that draws the scene of a number.
        kinds: kinds of questions, keys of `FAMILIES`.
        wording: kind of wording of the questions, see `word`.
        first: number of the first scene.
        accept: function that returns whether a question is used. By default all are.
    """
    missing = dict.fromkeys(kinds, per_kind)
    cases: list[Case] = []
    number = first
    while any(missing.values()):
        scene, random = draw(number), np.random.default_rng((number, 4))
        for kind in kinds:
            question = ask(scene, kind, random, wording)
            if missing[kind] and question is not None and (accept is None or accept(question)):
                cases.append(Case(number, scene, question))
                missing[kind] -= 1
        number += 1
    return cases


def answer_in_batches(
    cases: Sequence[Case], batch_size: int, answer: Callable[[Sequence[Case]], Sequence[str]]
) -> list[Outcome]:
    """Answer cases in batches.

    Args:
        cases: cases to answer.
        batch_size: number of cases in a batch.
        answer: function from a batch of cases to one text for each of them.
    """
    outcomes = []
    for start in logging.tqdm(range(0, len(cases), batch_size), desc="Answering"):
        batch = cases[start : start + batch_size]
        outcomes += [Outcome(case, text.strip()) for case, text in zip(batch, answer(batch), strict=True)]
    return outcomes


def is_correct(question: Question, answer: str) -> bool:
    """Return whether an answer is correct: equal text, or where a box is wanted one with an IoU of at least 0.5."""
    if question.box is None or not question.wants_box:
        return answer.strip().rstrip(".").lower() == question.answer.rstrip(".").lower()
    found = parse_spatial_text(answer).objects
    return len(found) > 0 and box_iou(found[0].box, question.box or ()) >= MIN_IOU


def accuracies(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the percentage of correct answers for each kind of question."""
    correct: dict[str, list[bool]] = defaultdict(list)
    for outcome in outcomes:
        correct[outcome.case.question.kind].append(outcome.correct)
    return mean_percentages(correct)


def mean_percentages(correct: dict[str, list[bool]]) -> dict[str, float]:
    """Return the percentage of true values for each key."""
    return {key: 100 * float(np.mean(values)) for key, values in correct.items()}
