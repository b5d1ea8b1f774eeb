"""Evaluation of a model on tasks: read, ask, score, write; however often it is interrupted, nothing is asked twice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..serving import GenerationOptions, Lyrics
from ..utils.folder_lock import FolderLock
from .answering import answer_samples
from .judging import Judge, judge_outcomes
from .kept_objects import KeptObjects
from .ranks import Ranks
from .report import compose_report
from .results import sample_line, score_responses, summarize
from .run_folder import (
    OBJECTS,
    REPORT,
    RESULTS,
    SAMPLES,
    RunFolder,
    write_json,
    write_response,
    write_text,
)
from .samples import Response
from .tasks import TaskData, Unit, read_task

Loader = Callable[[], Lyrics]


class Progress(Protocol):
    """What is told while a unit is evaluated."""

    def __call__(self, what: str, total: int, done: int) -> AbstractContextManager[Callable[[float | None], object]]:
        """Begin a bar of `total` steps of which `done` are done, and return a function that is called for each step,
        with the mean score in percent so far."""
        ...


def show_nothing(what: str, total: int, done: int) -> AbstractContextManager[Callable[[float | None], object]]:
    """Show no progress."""
    return nullcontext(lambda score: None)


@dataclass(frozen=True)
class EvaluationOptions:
    """How a model is evaluated.

    Attributes:
        batch_size: int, number of samples that are asked together.
        max_new_tokens: int, longest answer; `None` for that of the task.
        num_beams: int, number of beams.
        limit: int, number of samples of each unit, drawn the same way each time; `None` for all.
        image_root: further folder that links of images may lead to.
        answers_only: bool, whether answers and submissions are written without scores.
        judge: judge of long answers, or `None`.
        name: str, name of the model that results and report show.
    """

    batch_size: int = 16
    max_new_tokens: int | None = None
    num_beams: int = 1
    limit: int | None = None
    image_root: str | os.PathLike[str] | None = None
    answers_only: bool = False
    judge: Judge | None = None
    name: str = "model"

    def decoding(self, unit: Unit) -> dict[str, Any]:
        """Return the options of generation for a unit."""
        return {"max_new_tokens": self.max_new_tokens or unit.task.max_new_tokens, "num_beams": self.num_beams}


def evaluate(
    units: Sequence[Unit],
    load: Loader,
    out: str | os.PathLike[str],
    options: EvaluationOptions | None = None,
    progress: Progress = show_nothing,
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Evaluate a model on units of tasks, and write answers, scores, submissions and a report.

    The same call resumes an interrupted run. Several processes that call it together share the samples, and the results
    are those of one.

    Args:
        units: sequence of units, as `parse_units` returns them.
        load: function that loads the model; it is called when all data have been read.
        out: folder of the results; it may hold an earlier run of the same model, whose units are kept.
        options: options.
        progress: function that shows how far a task is.
        ranks: place among the processes, by default that of the environment.

    Returns:
        The content of `results.json`.

    Raises:
        FileNotFoundError: data are missing; the message says what to download, and where to put it.
        ValueError: data are unusable, or `out` was written with other data, another model or other options.
        ImportError: a library or program that a metric needs is missing.
        FolderLockedError: another evaluation writes to `out`.
    """
    chosen = options or EvaluationOptions()
    GenerationOptions(num_beams=chosen.num_beams)
    place = ranks or Ranks.from_environment()
    folder = RunFolder(out)
    folder.check_place()
    tasks = []
    for unit in units:
        tasks.append(read_task(unit, chosen.limit, chosen.image_root))
        if not chosen.answers_only and any(sample.has_reference for sample in tasks[-1].samples):
            tasks[-1].unit.task.metric.check()
    with ExitStack() as stack:
        assistant = stack.enter_context(load())
        origin = assistant.provenance()
        if place.is_first:
            folder.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FolderLock(folder.path, "evaluating"))
            folder.start({"model": origin["model"], "refiner": origin["refiner"]})
            for data in tasks:
                folder.start_unit(data, chosen.decoding(data.unit))
        place.wait()
        objects = KeptObjects(assistant.processor, folder.path / OBJECTS)
        for data in tasks:
            responses = _answer(assistant, data, folder, objects, chosen, progress, place)
            if place.is_first:
                _finish(data, responses, folder, chosen, progress)
        results = _write_results(folder, origin, chosen) if place.is_first else {}
        place.wait()
    return results


def _answer(
    assistant: Lyrics,
    data: TaskData,
    folder: RunFolder,
    objects: KeptObjects,
    options: EvaluationOptions,
    progress: Progress,
    ranks: Ranks,
) -> dict[int, Response]:
    """Answer this process's share of what has no answer yet, and return the answers of all processes."""
    count, size = len(data.samples), options.batch_size
    known = folder.read_responses(data.unit, count)
    ranks.wait()  # nobody writes before all have read
    mine = ranks.share([range(start, min(start + size, count)) for start in range(0, count, size)])
    known = {number: response for number, response in known.items() if response.error is None}  # the others once more
    missing = [number for number in mine if number not in known]
    if missing:
        mean = _RunningMean(data, is_scored=not options.answers_only)
        for number in mine:
            if number in known:
                mean.add(number, known[number])
        with (
            folder.answers_file(data.unit, ranks.index) as file,
            progress(data.unit.name, len(mine), len(mine) - len(missing)) as step,
        ):
            decoding = options.decoding(data.unit)
            for number, response in answer_samples(assistant, data, missing, objects, decoding, size):
                write_response(file, number, response)
                step(mean.add(number, response))
    ranks.wait()
    return folder.read_responses(data.unit, count)


class _RunningMean:
    """Mean score of the answers so far, where each has a score of its own."""

    def __init__(self, data: TaskData, is_scored: bool) -> None:
        self._data, self._is_scored, self._sum, self._count = data, is_scored, 0.0, 0

    def add(self, number: int, response: Response) -> float | None:
        """Return the mean in percent with one more answer, or `None` without scores."""
        metric = self._data.unit.task.metric
        if metric.score is not None and self._is_scored:
            score = metric.outcome(self._data.samples[number], response).score
            if score is not None:
                self._sum, self._count = self._sum + score, self._count + 1
        return 100 * self._sum / self._count if self._count else None


def _finish(
    data: TaskData, responses: Mapping[int, Response], folder: RunFolder, options: EvaluationOptions, progress: Progress
) -> None:
    """Score a unit, and write its samples, submission and results."""
    unit = data.unit
    own = folder.of(unit)
    metric = unit.task.metric
    if options.answers_only:
        outcomes = [metric.outcome(sample, responses[number], False) for number, sample in enumerate(data.samples)]
    else:
        outcomes = score_responses(data, responses)
    judge = options.judge if unit.task.is_judged and not options.answers_only else None
    if judge is not None:
        with progress(f"{unit.name}, {judge.name} judges", 2 * len(outcomes), 0) as step:
            outcomes = judge_outcomes(data, outcomes, judge, own, lambda: step(None))
    results = summarize(data, outcomes, options.decoding(unit))
    results["judge"] = None if judge is None else judge.name
    lines = [json.dumps(sample_line(one), ensure_ascii=False) for one in outcomes]
    write_text(own / SAMPLES, "".join(f"{line}\n" for line in lines))
    if unit.task.submission is not None:
        answered = [one for one in outcomes if one.response.error is None]
        for name, content in unit.task.submission.write(answered).items():
            write_text(own / name, content)
    write_json(own / RESULTS, results)


def _write_results(folder: RunFolder, origin: Mapping[str, Any], options: EvaluationOptions) -> dict[str, Any]:
    """Write the results of all units that are complete, and the report."""
    units = folder.units()
    results = {
        "format": 1,
        "model": {"name": options.name, **origin["model"]},
        "refiner": origin["refiner"],
        "versions": origin["versions"],
        "tasks": units,
    }
    write_text(folder.path / REPORT, compose_report(folder, results))
    write_json(folder.path / RESULTS, results)
    return results


def read_results(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the results in the folder of an evaluation.

    Raises:
        ValueError: there are none.
    """
    path = Path(out) / RESULTS
    try:
        results = json.loads(path.read_text("utf-8"))
        if not isinstance(results, dict) or not isinstance(results.get("tasks"), dict):
            raise ValueError("it is no file of results")
    except FileNotFoundError:
        raise ValueError(f"{out} holds no results: there is no {path}.") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return results
