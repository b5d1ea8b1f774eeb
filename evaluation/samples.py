"""What evaluation asks and gets: samples, and outcomes, which are samples with the model's answer and its score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One question of a task.

    Attributes:
        id: str, unique in its split.
        images: tuple of paths relative to the root of the data set.
        prompt: str, text that the model gets.
        question: str, question or expression in the data set; empty for captions.
        answers: tuple of str, reference answers; empty where a server has them.
        choices: tuple of str, options of a multiple-choice question.
        box: xyxy in [0, 1] of the region that is asked for, or `None`.
        groups: mapping of groups that scores are reported for, such as `{"answer type": "number"}`.
    """

    id: str
    images: tuple[str, ...]
    prompt: str
    question: str = ""
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    box: tuple[float, float, float, float] | None = None
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_reference(self) -> bool:
        """Whether an answer can be scored here."""
        return bool(self.answers) or self.box is not None


@dataclass(frozen=True)
class Response:
    """What a model answered to a sample, as it is kept on disk.

    Attributes:
        answer: str, text as the model wrote it; empty after an error.
        finish_reason: `"stop"` or `"length"`; empty after an error.
        seen: mapping of `count`, number of objects that the refiner saw, and `area`, median share of the image that
            one covers; empty without a refiner.
        error: reason why there is no answer, such as an image that cannot be read; or `None`.
    """

    answer: str = ""
    finish_reason: str = ""
    seen: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, for JSON."""
        if self.error is not None:
            return {"error": self.error}
        return {"answer": self.answer, "finish_reason": self.finish_reason, "seen": dict(self.seen)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Response:
        """Read the dictionary of `to_dict`; further keys are ignored."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})


@dataclass(frozen=True)
class Outcome:
    """A sample with the model's answer and its score.

    Attributes:
        sample: sample.
        response: answer of the model.
        parsed: JSON value that was read from the answer.
        is_parseable: bool, whether the answer says something that can be scored.
        score: float in [0, 1] (CIDEr: in [0, 10]), or `None` after an error and where there is no reference.
        iou: float, overlap with the box that is asked for, or `None` where none is.
        judged: tuple of a judge's scores of the reference and of the answer, from 1 to 10, or `None`.
    """

    sample: Sample
    response: Response
    parsed: Any = None
    is_parseable: bool = True
    score: float | None = None
    iou: float | None = None
    judged: tuple[float, float] | None = None
