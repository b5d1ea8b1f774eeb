"""Messages of a row: its question in one of many wordings, its answer, its boxes as blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .wordings import WORDINGS, Wordings

Block = dict[str, Any]
Turn = tuple[list[Block], list[Block]]  # question without images, and answer
BoxStyle = Literal["bare", "labeled", "thousandths"]

SHORT_WORDS = 4  # an answer of at most so many is asked for as a short one
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DERIVED = ("existence", "count")  # tasks that are made from the objects of a row
_BOX = "<box>"


class TurnWriter:
    """Writer of a row's question and answer.

    Args:
        wordings: wordings by kind.
        boxes: `"bare"` for boxes alone, `"labeled"` for boxes with their phrase before them, `"thousandths"` for text
            of integers from 0 to 999; that text does not move when an image is flipped or cropped.
        sample_answers: bool, whether one of several answers is drawn, rather than the most frequent one taken.
    """

    def __init__(self, wordings: Wordings = WORDINGS, boxes: BoxStyle = "bare", sample_answers: bool = False) -> None:
        self.wordings, self.sample_answers = wordings, sample_answers
        self.boxes: BoxStyle = boxes

    def write(
        self, row: Mapping[str, Any], task: str | None = None, random: np.random.Generator | None = None, name: str = ""
    ) -> Turn:
        """Write question and answer of a row.

        Args:
            row: mapping with the fields of `Row`.
            task: str, task if it is not the row's own.
            random: generator of all choices; without one the first wording and the most frequent answer are taken.
            name: str, the name that a derived task asks about.

        Raises:
            ValueError: when the row does not have what the task needs.
        """
        task = task or row["task"]
        writer = getattr(self, f"_{task}", None)
        if writer is None:
            raise ValueError(f"There is no task {task!r} that a row of {row['dataset']} could be written for.")
        return writer(row, random, name)

    def _say(self, kind: str, random: Any, box: Any = None, **texts: str) -> list[Block]:
        """Return the blocks of one wording."""
        parts = pick(self.wordings[kind], random).split(_BOX)  # before texts are put in, which may hold marks
        blocks: list[Block] = []
        for number, part in enumerate(parts):
            for name, text in texts.items():  # not `format`: texts may hold braces
                part = part.replace(f"{{{name}}}", text)
            if number and box is not None:
                blocks += self.box_blocks("", box)
            blocks += text_blocks(part)
        return blocks

    def box_blocks(self, phrase: str, box: Sequence[float]) -> list[Block]:
        """Return the blocks of one box."""
        if self.boxes == "thousandths":
            numbers = [min(999, int(value * 1000)) for value in box]
            text = f"({numbers[0]},{numbers[1]}),({numbers[2]},{numbers[3]})"
            return [text_block(text)]
        label = {"label": phrase} if self.boxes == "labeled" and phrase else {}
        return [{"type": "box", "box": list(box), "image": 0, **label}]

    def _answer(self, answers: Sequence[str], random: Any) -> str:
        answers = [answer for answer in answers if answer]
        if random is not None and self.sample_answers:
            return pick(answers, random)
        return Counter(answers).most_common(1)[0][0]

    def _caption(self, row: Any, random: Any, _: str) -> Turn:
        return self._say("caption", random), [text_block(pick(_need(row, "answers"), random))]

    def _detailed_caption(self, row: Any, random: Any, _: str) -> Turn:
        return self._say("detailed_caption", random), [text_block(pick(_need(row, "answers"), random))]

    def _vqa(self, row: Any, random: Any, _: str, short: str = "short_answer") -> Turn:
        answer = self._answer(_need(row, "answers"), random)
        kind = short if len(answer.split()) <= SHORT_WORDS else "long_answer"
        return self._say(kind, random, question=row["question"]), [text_block(answer)]

    def _text_vqa(self, row: Any, random: Any, name: str) -> Turn:
        return self._vqa(row, random, name, "read_short")

    def _choice(self, row: Any, random: Any, _: str) -> Turn:
        choices, right = list(_need(row, "choices")), row["answers"][0]
        if random is not None:
            choices = [choices[number] for number in random.permutation(len(choices))]
        lines = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        letter = LETTERS[choices.index(right)]
        return self._say("choice", random, question=row["question"], choices=lines), [text_block(letter)]

    def _locate(self, row: Any, random: Any, _: str) -> Turn:
        regions = _need(row, "regions")
        named = [region for region in regions if region["phrase"]]
        if not named:
            raise ValueError(f"Row {row['id']} has no phrase to look for.")
        phrase = pick(named, random)["phrase"]
        found = [region for region in regions if region["phrase"] == phrase]
        return self._say("locate", random, name=phrase), self._listed(found)

    def _describe_region(self, row: Any, random: Any, _: str) -> Turn:
        named = [region for region in _need(row, "regions") if region["phrase"]]
        if not named:
            raise ValueError(f"Row {row['id']} has no phrase for a region.")
        region = pick(named, random)
        return self._say("describe_region", random, region["box"]), [text_block(region["phrase"])]

    def _region_vqa(self, row: Any, random: Any, _: str) -> Turn:
        box = _need(row, "regions")[0]["box"]
        question = self._say("region_question", random, box, question=row["question"])
        return question, [text_block(self._answer(_need(row, "answers"), random))]

    def _point(self, row: Any, random: Any, _: str) -> Turn:
        region = _need(row, "regions")[0]
        return self._say("point", random, question=row["question"]), self.box_blocks(region["phrase"], region["box"])

    def _grounded_caption(self, row: Any, random: Any, _: str) -> Turn:
        blocks = _need(row, "messages")[-1]["content"]
        written = [
            part for block in blocks for part in (self.box_blocks("", block["box"]) if _is_box(block) else [block])
        ]
        return self._say("grounded_caption", random), written

    def _detect(self, row: Any, random: Any, _: str) -> Turn:
        boxes: BoxStyle = "labeled" if self.boxes == "bare" else self.boxes
        return self._say("detect", random), TurnWriter(self.wordings, boxes)._listed(_need(row, "regions"))

    def _existence(self, row: Any, random: Any, name: str) -> Turn:
        there = any(region["phrase"] == name for region in row["regions"])
        return self._say("existence", random, name=name), [text_block("Yes" if there else "No")]

    def _count(self, row: Any, random: Any, name: str) -> Turn:
        count = sum(region["phrase"] == name for region in row["regions"])
        return self._say("count", random, name=name), [text_block(str(count))]

    def _listed(self, regions: Sequence[Mapping[str, Any]]) -> list[Block]:
        blocks: list[Block] = []
        for region in regions:
            blocks += [text_block("; ")] if blocks else []
            if self.boxes == "thousandths":
                blocks += text_blocks(f"{region['phrase']} " if region["phrase"] else "")
            blocks += self.box_blocks(region["phrase"], region["box"])
        return blocks


def conversation(turns: Sequence[Turn], images: int) -> list[dict[str, Any]]:
    """Return the messages of turns about the same images, which stand in the first question."""
    messages: list[dict[str, Any]] = []
    for number, (question, answer) in enumerate(turns):
        places = [{"type": "image"} for _ in range(images)] if number == 0 else []
        messages.append({"role": "user", "content": [*places, *question]})
        messages.append({"role": "assistant", "content": answer})
    return messages


def messages_of(row: Mapping[str, Any], writer: TurnWriter | None = None) -> list[dict[str, Any]]:
    """Return the messages of a row in its own words, or in the first wording of its task."""
    if row["task"] == "dialogue":
        return list(row["messages"])
    return conversation([(writer or TurnWriter()).write(row)], len(row["images"]))


def pick(values: Sequence[Any], random: np.random.Generator | None) -> Any:
    """Return one of several values: drawn, or the first without a generator."""
    return values[0] if random is None else values[int(random.integers(len(values)))]


def text_block(text: str) -> Block:
    """Return a block of text."""
    return {"type": "text", "text": text}


def text_blocks(text: str) -> list[Block]:
    """Return a block of text in a list, which is empty for an empty text."""
    return [text_block(text)] if text else []


def _is_box(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "box"


def _need(row: Mapping[str, Any], name: str) -> Any:
    if not row[name]:
        raise ValueError(f"Row {row['id']} of {row['dataset']} has no {name}, which its task needs.")
    return row[name]
