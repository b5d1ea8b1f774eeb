"""MME: fourteen subtasks of yes-or-no questions, two per image.

The score of a subtask is the accuracy over its questions plus the accuracy over its images, where an image counts if
both of its questions are right; both in percent, so that a subtask has up to 200 points.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from .summary import percent
from .variants import check_variant
from .yes_no import YesNo

MmeVariant = Literal["official", "lmms-eval"]
_VARIANTS = frozenset(get_args(MmeVariant))

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


class MmeResult(NamedTuple):
    """Result of one question.

    Attributes:
        subtask: str, one of `PERCEPTION` or `COGNITION`.
        image: str, name of the image within the subtask; pairs the two questions of an image.
        score: float, 1 for a right answer, else 0.
    """

    subtask: str
    image: str
    score: float


def parse_mme(answer: str, *, variant: MmeVariant = "official") -> YesNo | None:
    """Return what an answer says, or `None` where it says neither yes nor no.

    Args:
        answer: str, answer of the model.
        variant: name of the code that is followed.
            "official": the lowercased answer is yes or no, or its first four characters contain "yes", or else "no".
            "lmms-eval": the same without outer white space and periods; "y" and "n" count too.
    """
    check_variant(variant, _VARIANTS)
    text = answer.lower()
    if variant == "lmms-eval":
        text = text.strip().replace(".", "")
        text = {"y": "yes", "n": "no"}.get(text, text)
    beginning = text[:4]
    if "yes" in beginning:
        return "yes"
    return "no" if "no" in beginning else None


def score_mme(answer: str, label: YesNo, *, variant: MmeVariant = "official") -> float:
    """Return 1 where the answer says what the label says, else 0; `variant` as in `parse_mme`."""
    return float(parse_mme(answer, variant=variant) == label)


def summarize_mme(results: Sequence[MmeResult]) -> dict[str, float]:
    """Return the points of the subtasks, and their sums.

    Args:
        results: sequence of `MmeResult`, one per question, in any order.

    Returns:
        Points under the name of each subtask that has results (up to 200), and under "perception" (up to 2,000) and
        "cognition" (up to 800) if all of their subtasks have results. Beside them "accuracy, <subtask>" and
        "accuracy_plus, <subtask>" in percent.

    Raises:
        ValueError: a subtask is unknown, or an image does not have two questions.
    """
    images: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for subtask, image, score in results:
        if subtask not in PERCEPTION + COGNITION:
            raise ValueError(f"MME has no subtask {subtask!r}. It has {', '.join(PERCEPTION + COGNITION)}.")
        images[subtask][image].append(score)
    summary: dict[str, float] = {}
    details: dict[str, float] = {}
    for subtask in (name for name in PERCEPTION + COGNITION if name in images):
        pairs = images[subtask]
        for image, scores in pairs.items():
            if len(scores) != 2:
                raise ValueError(
                    f"MME has two questions per image, but {image!r} of {subtask} has {len(scores)}: score whole ones."
                )
        accuracy = percent([score for scores in pairs.values() for score in scores])
        accuracy_plus = percent([float(sum(scores) == 2) for scores in pairs.values()])
        summary[subtask] = accuracy + accuracy_plus
        details |= {f"accuracy, {subtask}": accuracy, f"accuracy_plus, {subtask}": accuracy_plus}
    for name, subtasks in (("perception", PERCEPTION), ("cognition", COGNITION)):
        if all(subtask in summary for subtask in subtasks):
            details[name] = sum(summary[subtask] for subtask in subtasks)
    return summary | details
