"""Metrics as tasks use them: how an answer is read, scored alone, and summarized with the others."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...utils.optional_imports import import_optional
from ..metrics import anls, captions, direct_answer, exact_match, mme, multiple_choice, referring, vqa_accuracy, yes_no
from ..metrics.bootstrap import Interval, bootstrap_interval, bootstrap_statistic
from ..samples import Outcome, Sample

Summary = dict[str, Interval]  # in percent or points; the first is the one that is reported
_COUNT = 3  # columns of a subtask of MME: right answers, images with two, images


def _nothing_needed() -> None:
    """Return, for metrics that need no further library."""


@dataclass(frozen=True)
class Metric:
    """How the answers of a task are scored.

    Attributes:
        name: str, name as the field writes it.
        variant: str, name of the code that is followed where several differ.
        parse: function from a sample and an answer to what the answer says, a JSON value, or to `None`.
        score: function from a sample and an answer to a float in [0, 1]; `None` where answers are scored together.
        summarize: function from outcomes with a score to values with their intervals.
        score_all: function from outcomes to outcomes with scores, for metrics that need all answers.
        is_parseable: function from a sample and an answer to whether it is read as more than a guess; by default
            whether `parse` returns something.
        check: function that raises an error where a library or program is missing.
        summarize_group: function from the outcomes of a group to its value; by default the first of `summarize`.
    """

    name: str
    variant: str
    parse: Callable[[Sample, str], Any]
    score: Callable[[Sample, str], float] | None
    summarize: Callable[[Sequence[Outcome]], Summary]
    score_all: Callable[[Sequence[Outcome]], list[Outcome]] | None = None
    is_parseable: Callable[[Sample, str], bool] | None = None
    check: Callable[[], None] = _nothing_needed
    summarize_group: Callable[[Sequence[Outcome]], Interval] | None = None

    def of_group(self, outcomes: Sequence[Outcome]) -> Interval:
        """Return the value of a group of outcomes with its interval."""
        if self.summarize_group is not None:
            return self.summarize_group(outcomes)
        return next(iter(self.summarize(outcomes).values()))

    def outcome(self, sample: Sample, response: Any, scored: bool = True) -> Outcome:
        """Return the outcome of one sample; without a score after an error, without a reference, if all answers are
        scored together, or where none is asked for."""
        if response.error is not None:
            return Outcome(sample, response, is_parseable=False)
        parsed = self.parse(sample, response.answer)
        clear = parsed is not None if self.is_parseable is None else self.is_parseable(sample, response.answer)
        if not sample.has_reference or not scored:
            return Outcome(sample, response, parsed, clear)
        iou = None
        if sample.box is not None:
            iou = 0.0 if parsed is None else referring.box_iou(parsed, sample.box)
        score = None if self.score is None else self.score(sample, response.answer)
        return Outcome(sample, response, parsed, clear, score, iou)


# ---------------------------------------------------------------- summaries


def _scores(outcomes: Sequence[Outcome]) -> list[float]:
    return [one.score for one in outcomes if one.score is not None]


def percent_interval(scores: Any) -> Interval:
    """Return the mean of scores in percent with its interval."""
    return Interval(*(100 * value for value in bootstrap_interval(scores)))


def _summarize_mean(outcomes: Sequence[Outcome], name: str = "accuracy") -> Summary:
    return {name: percent_interval(_scores(outcomes))}


def _summarize_pope(outcomes: Sequence[Outcome]) -> Summary:
    """Return accuracy, F1, precision, recall and the share of answers that are yes."""
    said = np.array([one.parsed == "yes" for one in outcomes], float)
    true = np.array([one.sample.answers[0].lower() == "yes" for one in outcomes], float)
    rows = np.column_stack([said * true, said, true, said == true, np.ones(len(said))])
    columns: dict[str, Callable[[Any], Any]] = {
        "accuracy": lambda sums: _ratio(sums[:, 3], sums[:, 4]),
        "F1": lambda sums: _ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2]),
        "precision": lambda sums: _ratio(sums[:, 0], sums[:, 1]),
        "recall": lambda sums: _ratio(sums[:, 0], sums[:, 2]),
        "yes ratio": lambda sums: _ratio(sums[:, 1], sums[:, 4]),
    }
    return {name: bootstrap_statistic(rows, statistic) for name, statistic in columns.items()}


def _ratio(over: Any, below: Any) -> Any:
    """Return percent; 0 where the denominator is, as the metric has it."""
    return 100 * np.divide(over, below, out=np.zeros_like(over), where=below > 0)


def _summarize_mme(outcomes: Sequence[Outcome]) -> Summary:
    """Return the points of perception, of cognition and of each subtask. The images are drawn, with both questions.

    Where subtasks are missing, as in a part of the data, the sums are those of the others and named so.
    """
    pictures: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in outcomes:
        pictures[one.sample.groups["subtask"], one.sample.images[0]].append(one.score or 0.0)
    parts = [part for part in (*mme.PERCEPTION, *mme.COGNITION) if any(key[0] == part for key in pictures)]
    rows = np.zeros((len(pictures), _COUNT * len(parts)))
    for row, ((part, _), scores) in zip(rows, pictures.items(), strict=True):
        place = _COUNT * parts.index(part)
        row[place : place + _COUNT] = [np.mean(scores), float(min(scores)), 1]
    summary: Summary = {}
    for name, every in (("perception", mme.PERCEPTION), ("cognition", mme.COGNITION)):
        own = [number for number, part in enumerate(parts) if part in every]
        title = name if len(own) == len(every) else f"{name} ({len(own)} of {len(every)} subtasks)"
        if own:
            summary[title] = bootstrap_statistic(rows, partial(_mme_points, parts=own))
    return summary | {
        part: bootstrap_statistic(rows, partial(_mme_points, parts=[number])) for number, part in enumerate(parts)
    }


def _mme_points(sums: Any, parts: Sequence[int]) -> Any:
    """Return accuracy plus accuracy+ of subtasks, summed; NaN where one has no image."""
    right, both, count = (sums[:, [_COUNT * part + column for part in parts]] for column in range(_COUNT))
    with np.errstate(invalid="ignore"):
        return (100 * (right + both) / count).sum(axis=1)


def _summarize_boxes(outcomes: Sequence[Outcome]) -> Summary:
    """Return the accuracy at several overlaps, and the mean overlap."""
    ious = np.array([one.iou or 0.0 for one in outcomes])
    columns = {f"accuracy@{least}": ious >= least for least in (0.5, 0.1, 0.3, 0.7, 0.9)} | {"mean IoU": ious}
    return {name: percent_interval(values.astype(float)) for name, values in columns.items()}


def _relative_score(outcomes: Sequence[Outcome]) -> Interval:
    """Return the judge's scores of the answers in percent of those of the references."""
    rows = [[one.judged[1], one.judged[0]] for one in outcomes if one.judged is not None]
    return bootstrap_statistic(rows, lambda sums: 100 * sums[:, 0] / sums[:, 1])


# ---------------------------------------------------------------- captions


def _score_captions(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return outcomes whose score is the CIDEr-D of their image."""
    scores = _caption_scores(outcomes)
    of_each = dict(zip(scores.ids, scores.samples["CIDEr"].tolist(), strict=True))
    return [replace(one, score=of_each.get(one.sample.id)) for one in outcomes]


def _caption_scores(outcomes: Sequence[Outcome]) -> Any:
    given = [one for one in outcomes if one.response.error is None and one.sample.answers]
    return captions.score_captions(
        {one.sample.id: one.parsed or "" for one in given}, {one.sample.id: one.sample.answers for one in given}
    )


def _summarize_captions(outcomes: Sequence[Outcome]) -> Summary:
    found = captions.bootstrap_captions(_caption_scores(outcomes))
    order = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L", "BLEU-1", "BLEU-2", "BLEU-3")
    return {name: found[name] for name in order if name in found}


def _check_captions() -> None:
    import_optional("pycocoevalcap")
    if shutil.which("java") is None:
        raise ImportError(
            "Captions are scored by pycocoevalcap, which needs Java, and there is no `java` on the PATH: install a "
            "Java runtime (17 works), or write the answers alone (--answers-only)."
        )


def _check_anls() -> None:
    import_optional("rapidfuzz")


# ---------------------------------------------------------------- the table


def vqa(variant: vqa_accuracy.VqaVariant = "official") -> Metric:
    """Return VQA accuracy."""
    return Metric(
        "VQA accuracy",
        variant,
        lambda _, answer: vqa_accuracy.parse_vqa(answer, variant=variant),
        lambda sample, answer: vqa_accuracy.score_vqa(answer, sample.answers, variant=variant),
        _summarize_mean,
    )


def exact(variant: exact_match.ExactMatchVariant = "official") -> Metric:
    """Return exact match of short answers."""
    return Metric(
        "exact match",
        variant,
        lambda _, answer: exact_match.parse_exact_match(answer, variant=variant),
        lambda sample, answer: exact_match.score_exact_match(answer, sample.answers, variant=variant),
        _summarize_mean,
    )


def choice(variant: multiple_choice.ChoiceVariant = "official") -> Metric:
    """Return accuracy of a choice by its letter."""
    return Metric(
        "multiple-choice accuracy",
        variant,
        lambda sample, answer: multiple_choice.parse_choice(answer, sample.choices, variant=variant),
        lambda sample, answer: multiple_choice.score_choice(
            answer, sample.choices, sample.choices.index(sample.answers[0]), variant=variant
        ),
        _summarize_mean,
    )


def yes_or_no(variant: yes_no.YesNoVariant = "official") -> Metric:
    """Return accuracy, F1, precision, recall and yes ratio of yes or no. Where the official reading takes everything
    else for yes, the answers that say neither are counted as unparseable all the same."""
    return Metric(
        "yes or no",
        variant,
        lambda _, answer: yes_no.parse_yes_no(answer, variant=variant),
        lambda sample, answer: float(yes_no.parse_yes_no(answer, variant=variant) == sample.answers[0].lower()),
        _summarize_pope,
        is_parseable=lambda _, answer: yes_no.parse_yes_no(answer, variant="vlmevalkit") is not None,
    )


VQA = vqa()
EVALAI_VQA = vqa("evalai")
EXACT_MATCH = exact()
CHOICE = choice()
NAMED_CHOICE = choice("aokvqa")
POPE = yes_or_no()
DIRECT_ANSWER = Metric(
    "direct answer",
    "lowercase",
    lambda _, answer: direct_answer.parse_direct_answer(answer, variant="lowercase"),
    lambda sample, answer: direct_answer.score_direct_answer(answer, sample.answers, variant="lowercase"),
    _summarize_mean,
)
ANLS = Metric(
    "ANLS",
    "official",
    lambda _, answer: anls.parse_anls(answer),
    lambda sample, answer: anls.score_anls(answer, sample.answers),
    partial(_summarize_mean, name="ANLS"),
    check=_check_anls,
)
MME = Metric(
    "MME points",
    "official",
    lambda _, answer: mme.parse_mme(answer),
    lambda sample, answer: float(mme.parse_mme(answer) == sample.answers[0].lower()),
    _summarize_mme,
)
BOX = Metric(
    "referring accuracy",
    "official",
    lambda _, answer: None if (box := referring.parse_box(answer)) is None else [round(value, 4) for value in box],
    lambda sample, answer: referring.score_box(referring.parse_box(answer), sample.box or ()),
    _summarize_boxes,
)
CAPTIONS = Metric(
    "CIDEr-D",
    "pycocoevalcap",
    lambda _, answer: captions.parse_caption(answer),
    None,
    _summarize_captions,
    score_all=_score_captions,
    check=_check_captions,
    summarize_group=lambda outcomes: percent_interval(_scores(outcomes)),
)
JUDGED = Metric(
    "score relative to the reference",
    "both orders",
    lambda _, answer: answer.strip() or None,
    None,
    lambda outcomes: {"relative score": _relative_score(outcomes)},
)

# Those that a task of one's own can choose.
METRICS: Mapping[str, Metric] = {
    "exact_match": EXACT_MATCH,
    "yes_no": yes_or_no("vlmevalkit"),
    "vqa_accuracy": VQA,
    "iou": BOX,
    "anls": ANLS,
    "multiple_choice": NAMED_CHOICE,
}
