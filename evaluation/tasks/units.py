"""Words of the command line: `TASK`, `TASK/SPLIT` and `TASK:FOLDER`, as units of evaluation."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .scoring import METRICS
from .table import TASKS, Source, Task


@dataclass(frozen=True)
class Unit:
    """One split of one task: what has a score of its own.

    Attributes:
        task: task, with the prompt and the metric that were chosen.
        split: str, name of the split.
        root: path of the folder or file of the data set.
    """

    task: Task
    split: str
    root: Path

    @property
    def name(self) -> str:
        """Name as the command line writes it, `TASK/SPLIT`."""
        return f"{self.task.name}/{self.split}"

    @property
    def folder_name(self) -> str:
        """Name of the unit's folder in an output."""
        return self.name.replace("/", "-")

    @property
    def title(self) -> str:
        """Name for people."""
        return self.task.title if len(self.task.splits) == 1 else f"{self.task.title}, {self.split}"

    @property
    def source(self) -> Source:
        """Where the rows come from."""
        return self.task.splits[self.split]


def find_task(name: str) -> Task:
    """Return a task by its name.

    Raises:
        ValueError: there is none; the message names those that are written alike.
    """
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name.lower(), TASKS, 3, 0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known are {', '.join(TASKS)}."
    raise ValueError(f"There is no task {name!r}. {hint}")


def parse_units(
    words: Sequence[str],
    data: str | os.PathLike[str] | None = None,
    prompts: Sequence[str] = (),
    metric: str | None = None,
) -> list[Unit]:
    """Return the units of words.

    Args:
        words: sequence of `TASK` (all splits that are usual), `TASK/SPLIT`, `TASK:FOLDER` or `TASK/SPLIT:FOLDER`.
        data: folder with one folder for each data set, named as `lyrics data list` names it; or the folder (for
            `custom` the file) of the one data set.
        prompts: sequence of prompts: `TEXT` for all tasks or `TASK=TEXT` for one. `{question}` and `{choices}` in it
            are replaced.
        metric: name of the metric of `custom`, one of `METRICS`; by default what the rows have.

    Raises:
        ValueError: a word, a prompt or the metric is wrong; the message says how it is written.
    """
    chosen = _read_prompts(prompts)
    units: list[Unit] = []
    for word in words:
        name, _, place = word.partition(":")
        name, _, split = name.partition("/")
        task = find_task(name)
        if split and split not in task.splits:
            raise ValueError(f"{task.name} has no split {split!r}; it has {', '.join(task.splits)}.")
        task = _configure(task, chosen, metric)
        splits = (split,) if split else task.default
        units += [Unit(task, one, _find_root(task.splits[one].data, word, place, data)) for one in splits]
    names = [unit.name for unit in units]
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise ValueError(f"{twice[0]} is given twice.")
    for name in chosen.keys() - {"", *(unit.task.name for unit in units)}:
        raise ValueError(f"There is a prompt for {name}, which is not evaluated.")
    return units


def _find_root(data_set: str, word: str, place: str, data: str | os.PathLike[str] | None) -> Path:
    if place:
        return Path(os.path.expanduser(place))
    if data is None:
        raise ValueError(f"Where are the data of {word}? Give --data ROOT (ROOT/{data_set}), or {word}:FOLDER.")
    own = Path(data) / data_set
    return own if own.exists() else Path(data)


def _read_prompts(prompts: Sequence[str]) -> dict[str, str]:
    """Return prompts by the name of their task; that for all under an empty name."""
    chosen: dict[str, str] = {}
    for prompt in prompts:
        name, equals, text = prompt.partition("=")
        own = bool(equals) and name in TASKS
        key, text = (name, text) if own else ("", prompt)
        if not text.strip():
            raise ValueError(f"The prompt {prompt!r} is empty.")
        if key in chosen:
            raise ValueError(f"There are two prompts for {key or 'all tasks'}.")
        chosen[key] = text
    return chosen


def _configure(task: Task, prompts: Mapping[str, str], metric: str | None) -> Task:
    """Return the task with a prompt and a metric that were chosen."""
    prompt = prompts.get(task.name, prompts.get("", task.prompt))
    if "{question}" not in prompt and "{question}" in task.prompt:
        raise ValueError(f"The prompt {prompt!r:.80} has no {{question}}, so that {task.name} would ask nothing.")
    if metric is not None and task.name == "custom":
        if metric not in METRICS:
            raise ValueError(f"There is no metric {metric!r}; known are {', '.join(METRICS)}.")
        task = replace(task, metric=METRICS[metric])
    return replace(task, prompt=prompt)
