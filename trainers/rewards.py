"""Rewards for grounded answers: pure functions of an answer and of what its row expects, between 0 and 1.

| name | column of the row | reward |
|---|---|---|
| `iou` | `expected_boxes` | overlap of the answer's boxes with the expected ones |
| `format` | `expected_boxes` | 1 if the answer is nothing but boxes as the project writes them |
| `count` | `expected_count` | 1 if the answer names this number, and no other |
| `existence` | `expected_existence` | 1 if the answer says yes or no, as expected |
| `exact` | `expected_answer` | 1 if the answer is this text |
| `words` | `expected_answer` | share of words that answer and text have in common |

Reasoning before an answer does not count. A row without the column, or with `None` in it, is not scored by the reward.
Answers that hedge earn nothing: a box too many lowers `iou`, a second number fails `count`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..processing_lyrics.spatial_text import SEPARATOR, format_box, format_object, parse_spatial_text

Box = Sequence[float]

_TO_TWENTY = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
NUMBER_WORDS = {word: number for number, word in enumerate(_TO_TWENTY.split())} | {"none": 0, "no": 0}
_NUMBER = re.compile(rf"\d+(?:\.\d+)?|\b(?:{'|'.join(NUMBER_WORDS)})\b")
_NEGATION = r"(n't|\s+(no|not|none|nothing|nobody|never)\b)"
_YES = re.compile(rf"yes\b|there(\s+is|\s+are|'s)(?!\w|{_NEGATION})")
_NO = re.compile(rf"no\b|there(\s+is|\s+are|'s){_NEGATION}")


def box_iou(one: Box, other: Box) -> float:
    """Return the intersection over union of two xyxy boxes, 0 for two boxes without an area."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(width * height / max(sum(areas) - width * height, 1e-9))


def score_iou(answer: str, expected: Sequence[Box]) -> float:
    """Return how well the boxes of an answer cover the expected ones.

    Boxes are matched one to one, those with the largest overlap first, whatever their labels. The sum of the IoUs of
    the pairs is divided by the larger number of boxes, so that a missing box costs as much as one too many.

    Args:
        answer: text of the answer.
        expected: sequence of boxes, xyxy in [0, 1]. If it is empty, an answer without a box scores 1.
    """
    found = [one.box for one in parse_spatial_text(answer).objects]
    if not found or not expected:
        return float(not found and not expected)
    pairs = [(box_iou(box, true), i, j) for i, box in enumerate(found) for j, true in enumerate(expected)]
    total, used_found, used_expected = 0.0, set[int](), set[int]()
    for iou, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        if i not in used_found and j not in used_expected:
            used_found.add(i)
            used_expected.add(j)
            total += iou
    return total / max(len(found), len(expected))


def score_format(answer: str, expected: Sequence[Box]) -> float:
    """Return 1 if an answer is nothing but `label: [x1, y1, x2, y2]; ...`, with or without labels, otherwise 0.

    Coordinates have three decimals and corners are in order, as `format_object` writes them. A full stop at the end is
    allowed. If no box is expected, the answer must have no bracket.
    """
    if not expected:
        return float("[" not in answer and "]" not in answer)
    objects = parse_spatial_text(answer).objects
    written = SEPARATOR.join(format_object(one.label, one.box) if one.label else format_box(one.box) for one in objects)
    return float(bool(objects) and plain(answer) == written)


def score_count(answer: str, expected: int) -> float:
    """Return 1 if an answer names the expected number, in digits or words to twenty, and no other; otherwise 0.

    Boxes are no numbers. `no` and `none` are 0.
    """
    text = parse_spatial_text(answer).plain_text.lower()
    numbers = {float(word) if word[0].isdigit() else NUMBER_WORDS[word] for word in _NUMBER.findall(text)}
    return float(numbers == {expected})


def score_existence(answer: str, expected: bool) -> float:
    """Return 1 if an answer begins with yes or no, or with `There is` or `There is no`, as expected; otherwise 0."""
    return float(bool((_YES if expected else _NO).match(answer.strip().lower().replace("\u2019", "'"))))


def score_exact(answer: str, expected: str) -> float:
    """Return 1 if an answer is the expected text, apart from case, outer spaces and a full stop; otherwise 0."""
    return float(plain(answer).lower() == plain(expected).lower())


def score_words(answer: str, expected: str) -> float:
    """Return the F1 score of the words of an answer against those of the expected text, whatever their order."""
    first, second = (Counter(re.findall(r"\w+", text.lower())) for text in (answer, expected))
    if not first or not second:
        return float(first == second)
    return 2 * (first & second).total() / (first.total() + second.total())


def plain(text: str) -> str:
    """Return a text without outer spaces and without a full stop at its end."""
    return text.strip().removesuffix(".").rstrip()


@dataclass(frozen=True)
class Reward:
    """Reward function in the form that TRL's `GRPOTrainer` calls.

    Args:
        name: name in the log.
        column: column of the rows that holds what is expected.
        score: function of an answer and of the column's value.
    """

    name: str
    column: str
    score: Callable[[str, Any], float]

    @property
    def __name__(self) -> str:
        """Name under which TRL logs the reward."""
        return self.name

    def __call__(
        self, completions: Sequence[Any], completions_without_reasoning: Sequence[str] | None = None, **columns: Any
    ) -> list[float | None]:
        """Return the reward of each completion, `None` for a row that expects nothing of this kind.

        Args:
            completions: sequence of texts, or of lists of messages.
            completions_without_reasoning: sequence of their texts, which count where they are given.
            columns: columns of the rows, a value for each completion.
        """
        scored = completions if completions_without_reasoning is None else completions_without_reasoning
        expected = columns.get(self.column) or [None] * len(completions)
        return [
            None if one is None else self.score(text_of(completion), one)
            for completion, one in zip(scored, expected, strict=True)
        ]


def text_of(completion: Any) -> str:
    """Return the text of a completion: a text, or a list of messages whose last one counts."""
    content = completion if isinstance(completion, str) else completion[-1]["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


REWARDS: dict[str, Reward] = {
    reward.name: reward
    for reward in (
        Reward("iou", "expected_boxes", score_iou),
        Reward("format", "expected_boxes", score_format),
        Reward("count", "expected_count", score_count),
        Reward("existence", "expected_existence", score_existence),
        Reward("exact", "expected_answer", score_exact),
        Reward("words", "expected_answer", score_words),
    )
}


def find_rewards(names: Sequence[str]) -> list[Callable[..., Any]]:
    """Return reward functions by their names: keys of `REWARDS`, or `module.function` of one's own.

    Raises:
        ValueError: there is no name, it is given twice, or there is no such function.
    """
    if not names or len(set(names)) != len(names):
        raise ValueError(f"rewards must be one or more different names, got {list(names)}.")
    return [REWARDS[name] if name in REWARDS else _import_reward(name) for name in names]


def _import_reward(name: str) -> Callable[..., Any]:
    from importlib import import_module

    module, _, function = name.rpartition(".")
    if not module:
        raise ValueError(
            f"There is no reward {name!r}; known are {', '.join(REWARDS)}, or module.function of your own."
        )
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"The reward {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"The reward {name!r} is no function, but a {type(found).__name__}.")
    return found
