"""Results of a unit: values with intervals, groups, counts of what could not be read, and the lines of its samples."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..processing_lyrics import parse_spatial_text
from .metrics.bootstrap import Interval
from .samples import Outcome, Response, Sample
from .tasks import TaskData

_COUNTS = ((0, "none"), (1, "1"), (3, "2 to 3"), (6, "4 to 6"), (10, "7 to 10"), (math.inf, "more than 10"))
_AREAS = ((0.01, "below 1 %"), (0.1, "1 to 10 %"), (math.inf, "above 10 %"))
NUMBER_SEEN, SIZE_SEEN, SIZE_ASKED = "objects seen", "size of the objects seen", "size of the box"
_BINNED = (NUMBER_SEEN, SIZE_SEEN, SIZE_ASKED)
_ORDER = [name for _, name in (*_COUNTS, *_AREAS)]


def score_responses(data: TaskData, responses: Mapping[int, Response]) -> list[Outcome]:
    """Return the outcomes of all samples that have an answer, in the order of the samples."""
    metric = data.unit.task.metric
    outcomes = [
        metric.outcome(sample, responses[number]) for number, sample in enumerate(data.samples) if number in responses
    ]
    scorable = any(one.response.error is None and one.sample.answers for one in outcomes)
    return metric.score_all(outcomes) if metric.score_all is not None and scorable else outcomes


def summarize(data: TaskData, outcomes: Sequence[Outcome], decoding: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of a unit, for JSON.

    Args:
        data: samples of the unit.
        outcomes: sequence of outcomes, with or without scores.
        decoding: mapping of the options of generation.
    """
    unit = data.unit
    answered = [one for one in outcomes if one.response.error is None]
    scored = [one for one in answered if one.score is not None]
    values = unit.task.metric.summarize(scored) if scored else {}
    return {
        "name": unit.name,
        "task": unit.task.name,
        "split": unit.split,
        "title": unit.title,
        "data": unit.source.data,
        "metric": unit.task.metric.name,
        "variant": unit.task.metric.variant,
        "score": next((interval.value for interval in values.values()), None),
        "values": {name: _as_json(interval) for name, interval in values.items()},
        "groups": _group(data, scored),
        "samples": len(outcomes),
        "scored": len(scored),
        "unparseable": sum(not one.is_parseable for one in answered),
        "failed": len(outcomes) - len(answered),
        "cut_at_the_longest": sum(one.response.finish_reason == "length" for one in answered),
        "omitted": data.omitted,
        "notes": [*data.notes, *([unit.task.note] if unit.task.note else [])],
        "prompt": unit.task.prompt,
        "decoding": dict(decoding),
    }


def _as_json(interval: Interval) -> dict[str, Any]:
    """Return a value with its interval; what is not finite becomes `None`."""
    value, low, high = (number if math.isfinite(number) else None for number in interval)
    return {"value": value, "interval": [low, high]}


def _group(data: TaskData, outcomes: Sequence[Outcome]) -> dict[str, list[dict[str, Any]]]:
    """Return the value of each group, by the kind of the groups."""
    kinds: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for one in outcomes:
        for kind, name in groups_of(one).items():
            kinds[kind][name].append(one)
    of_group = data.unit.task.metric.of_group
    return {
        kind: [
            {"name": name, "samples": len(names[name]), **_as_json(of_group(names[name]))}
            for name in sorted(names, key=_ORDER.index if kind in _BINNED else None)
        ]
        for kind, names in kinds.items()
        if len(names) > 1 or kind in _BINNED
    }


def groups_of(outcome: Outcome) -> dict[str, str]:
    """Return a sample's groups: those of the data set, number and size of what the refiner saw, size of its box."""
    groups = dict(outcome.sample.groups)
    if seen := outcome.response.seen:
        groups[NUMBER_SEEN] = _bin(seen["count"], _COUNTS, closed=True)
        if seen["count"]:
            groups[SIZE_SEEN] = _bin(seen["area"], _AREAS)
    if (box := outcome.sample.box) is not None:
        groups[SIZE_ASKED] = _bin((box[2] - box[0]) * (box[3] - box[1]), _AREAS)
    return groups


def _bin(value: float, bins: Sequence[tuple[float, str]], closed: bool = False) -> str:
    return next(name for end, name in bins if value < end or (closed and value <= end) or end == math.inf)


# ---------------------------------------------------------------- lines of samples


def sample_line(outcome: Outcome) -> dict[str, Any]:
    """Return a sample with answer and score, for JSON."""
    sample, response = outcome.sample, outcome.response
    line: dict[str, Any] = {"id": sample.id, "images": list(sample.images), "prompt": sample.prompt}
    line |= _reference(sample)
    if response.error is not None:
        return line | {"error": response.error}
    line |= {"answer": response.answer, "finish_reason": response.finish_reason, "parsed": outcome.parsed}
    found = parse_spatial_text(response.answer).objects
    line |= {"boxes": [{"label": one.label, "box": list(one.box)} for one in found]} if found else {}
    line |= {"parseable": outcome.is_parseable}
    if outcome.score is not None:
        line["score"] = round(outcome.score, 6)
    if outcome.iou is not None:
        line["iou"] = round(outcome.iou, 6)
    if outcome.judged is not None:
        line["judged"] = list(outcome.judged)
    groups = groups_of(outcome)
    return line | ({"groups": groups} if groups else {}) | ({"seen": dict(response.seen)} if response.seen else {})


def _reference(sample: Sample) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if sample.answers:
        found["answers"] = list(sample.answers)
    if sample.choices:
        found["choices"] = list(sample.choices)
    if sample.box is not None:
        found["box"] = list(sample.box)
    return found
