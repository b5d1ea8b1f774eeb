"""Files that the servers of benchmarks take, written from a model's answers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..samples import Outcome


@dataclass(frozen=True)
class Submission:
    """Form of a file of answers.

    Attributes:
        write: function from outcomes to the content of each file, by name.
    """

    write: Callable[[Sequence[Outcome]], dict[str, str]]


def _number(key: str) -> int | str:
    """Return an id as the number that it was in the data set, if it was one."""
    return int(key) if key.isdecimal() and key == str(int(key)) else key


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _rows(row: Callable[[Outcome], dict[str, Any]]) -> Submission:
    """Return the form of a JSON list with one object for each answer."""

    def write(outcomes: Sequence[Outcome]) -> dict[str, str]:
        return {"submission.json": json.dumps([row(one) for one in outcomes], ensure_ascii=False)}

    return Submission(write)


def _lines(row: Callable[[Outcome], dict[str, Any]]) -> Submission:
    """Return the form of JSON Lines with one object for each answer."""

    def write(outcomes: Sequence[Outcome]) -> dict[str, str]:
        lines = [json.dumps(row(one), ensure_ascii=False) for one in outcomes]
        return {"submission.jsonl": "".join(f"{line}\n" for line in lines)}

    return Submission(write)


def _write_mme(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return one file for each subtask: image, question, true answer and answer, separated by tabs."""
    lines: dict[str, list[str]] = defaultdict(list)
    for one in outcomes:
        part = one.sample.groups["subtask"]
        name = one.sample.images[0].rpartition("/")[2]
        fields = (name, one.sample.question, one.sample.answers[0], one.response.answer)
        lines[part].append("\t".join(map(_on_one_line, fields)))
    return {f"submission/{part}.txt": "".join(f"{line}\n" for line in own) for part, own in lines.items()}


def _write_choices(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return A-OKVQA's object: the text of the chosen option by question."""
    chosen = {
        one.sample.id: {"multiple_choice": one.sample.choices[one.parsed] if isinstance(one.parsed, int) else ""}
        for one in outcomes
    }
    return {"submission.json": json.dumps(chosen, ensure_ascii=False)}


TEXT_CAPS = _rows(lambda one: {"image_id": one.sample.id, "caption": _on_one_line(one.response.answer)})
CAPTIONS = _rows(lambda one: {"image_id": _number(one.sample.id), "caption": _on_one_line(one.response.answer)})
VQA = _rows(lambda one: {"question_id": _number(one.sample.id), "answer": one.response.answer})
GQA = _rows(lambda one: {"questionId": one.sample.id, "prediction": one.parsed or ""})
VIZWIZ = _rows(lambda one: {"image": one.sample.id, "answer": one.response.answer})
TEXT_VQA = _rows(lambda one: {"question_id": _number(one.sample.id), "answer": one.response.answer})
DOCVQA = _rows(lambda one: {"questionId": _number(one.sample.id), "answer": one.response.answer})
POPE = _lines(
    lambda one: {
        "question_id": _number(one.sample.id),
        "question": one.sample.question,
        "answer": one.response.answer,
    }
)
LLAVA_BENCH = _lines(lambda one: {"question_id": _number(one.sample.id), "text": one.response.answer})
MME = Submission(_write_mme)
CHOICES = Submission(_write_choices)
