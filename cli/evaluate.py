"""`lyrics evaluate`: a model on the benchmarks of the field, or on questions of one's own; and two models compared."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import evaluate_retrieval
from .common import (
    add_command,
    add_model_arguments,
    load_assistant,
    load_processor,
    model_name,
    on_one_line,
    positive_int,
    printable,
    quiet_loading,
)

if TYPE_CHECKING:
    from lyrics import Lyrics
    from lyrics.evaluation.tasks import Unit

EXAMPLES = """examples:
  lyrics evaluate --list
  lyrics evaluate vqav2 pope refcoco/testA --model DIR --data data --out runs/scores
  lyrics evaluate vqav2/testdev --model DIR --data data --out runs/scores   # a file for the server
  lyrics evaluate textvqa:data/textvqa --limit 500 --model DIR --out runs/part
  lyrics evaluate custom:mine.jsonl --model DIR --out runs/mine
  lyrics evaluate retrieval --model FIRST_STAGE --refiner DIR --data data --out runs/recall
  lyrics evaluate --compare runs/before runs/after
  accelerate launch -m lyrics_cli.main evaluate vqav2 --model DIR --data data --out runs/scores

A task is NAME (its usual splits), NAME/SPLIT, NAME:FOLDER or NAME/SPLIT:FOLDER. The data of a task lie in DATA/<name>
as `lyrics data list` says. The same command resumes. `custom` reads lines with image, question, and answer, answers,
choices or box.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = "Evaluate a model: scores with intervals, every answer, files for servers, and a report."
    parser = add_command(
        commands, "evaluate", "score a model on benchmarks or your own questions", description, EXAMPLES
    )
    parser.add_argument("tasks", metavar="TASK", nargs="*", help="tasks, see --list")
    add_model_arguments(parser, json=False)
    parser.add_argument("--refiner", metavar="DIR|ID", help="a model whose refiner `retrieval` takes")
    parser.add_argument("--data", metavar="ROOT", type=Path, help="folder with one folder for each data set")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of answers, scores and report")
    parser.add_argument(
        "--image-root", metavar="DIR", type=Path, help="further folder that links of images may lead to"
    )
    parser.add_argument(
        "--limit", metavar="N", type=positive_int, help="a draw of N samples of each split, always the same"
    )
    parser.add_argument(
        "--batch-size", metavar="N", type=positive_int, default=16, help="samples at once (default: 16)"
    )
    parser.add_argument("--max-new-tokens", metavar="N", type=positive_int, help="longest answer (default: the task's)")
    parser.add_argument("--num-beams", metavar="N", type=positive_int, default=1, help="search with beams (default: 1)")
    parser.add_argument(
        "--prompt",
        metavar="TEXT|TASK=TEXT",
        action="append",
        default=[],
        help="another prompt, with {question} and {choices} in it; may be repeated",
    )
    parser.add_argument("--metric", metavar="NAME", help="metric of `custom` (default: what its rows have)")
    parser.add_argument(
        "--answers-only", action="store_true", help="write answers and files for servers, and no scores"
    )
    parser.add_argument("--judge", metavar="URL", help="OpenAI-compatible server that judges long answers")
    parser.add_argument("--judge-model", metavar="NAME", default="", help="model of the judge; key: OPENAI_API_KEY")
    parser.add_argument("--card", action="store_true", help="write the scores into the model's card")
    parser.add_argument("--compare", metavar="DIR", nargs=2, type=Path, help="compare two folders of results")
    parser.add_argument("--list", action="store_true", help="list tasks, splits, metrics and prompts")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, compare, or list the tasks."""
    if arguments.list:
        return _list(arguments)
    if arguments.compare:
        return _compare(arguments)
    if not arguments.tasks:
        raise ValueError("Which tasks? Name some (`lyrics evaluate --list`), or give --compare A B.")
    if arguments.out is None:
        raise ValueError("Where shall the results go? Give --out DIR.")
    if any(map(evaluate_retrieval.is_retrieval, arguments.tasks)):
        return evaluate_retrieval.run(arguments)
    if arguments.refiner is not None:
        raise ValueError(f"--refiner has an effect on retrieval only, not on {arguments.tasks[0]}.")
    if arguments.card and not (arguments.model and os.path.isdir(arguments.model)):
        raise ValueError(f"--card writes into the model's folder, and {arguments.model or 'the micro model'} is none.")
    return _evaluate(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from lyrics.evaluation import EvaluationOptions, Ranks, evaluate
    from lyrics.evaluation.judging import ServerJudge
    from lyrics.evaluation.tasks import parse_units

    units = parse_units(arguments.tasks, arguments.data, arguments.prompt, arguments.metric)
    judge = None
    if arguments.judge is not None:
        judge = ServerJudge(arguments.judge, arguments.judge_model, os.environ.get("OPENAI_API_KEY", ""))
    ranks = Ranks.from_environment()
    options = EvaluationOptions(
        arguments.batch_size,
        arguments.max_new_tokens,
        arguments.num_beams,
        arguments.limit,
        arguments.image_root,
        arguments.answers_only,
        judge,
        model_name(arguments.model),
    )
    quiet_loading()
    results = evaluate(
        units, lambda: _load(arguments), arguments.out, options, _show_progress if ranks.is_first else _no_bar, ranks
    )
    if not ranks.is_first:
        return 0
    if arguments.card:
        _write_card(arguments, results)
    return _report(arguments, units, results)


def _load(arguments: argparse.Namespace) -> Lyrics:
    return load_assistant(arguments, load_processor(arguments), max_batch_size=arguments.batch_size)


@contextmanager
def _show_progress(what: str, total: int, done: int) -> Iterator[Callable[[float | None], object]]:
    """Show a bar with an estimate of the time and the score so far, also where standard error is no terminal."""
    from tqdm import tqdm

    with tqdm(total=total, initial=done, desc=what, mininterval=1 if sys.stderr.isatty() else 30) as bar:

        def step(score: float | None) -> None:
            if score is not None:
                bar.set_postfix_str(f"score {score:.1f}", refresh=False)
            bar.update()

        yield step


@contextmanager
def _no_bar(what: str, total: int, done: int) -> Iterator[Callable[[float | None], object]]:
    yield lambda score: None


def _report(arguments: argparse.Namespace, units: list[Unit], results: Mapping[str, Any]) -> int:
    """Print the scores of this command's units, and return the exit code."""
    from lyrics.evaluation.report import show_score

    own = [results["tasks"][unit.name] for unit in units]
    failed = sum(unit["failed"] for unit in own)
    if arguments.json:
        print(
            json.dumps({"out": str(arguments.out), "tasks": {unit["name"]: unit for unit in own}}, ensure_ascii=False)
        )
        return 2 if failed else 0
    for unit in own:
        values = next(iter(unit["values"]), unit["metric"])
        line = f"{unit['name']}: {values} {show_score(unit)}, {unit['samples']:,} samples"
        for name in ("unparseable", "failed"):
            line += f", {unit[name]:,} {name}" if unit[name] else ""
        print(on_one_line(line))
    if failed:
        print("Samples failed; `error` in samples.jsonl says why. They have no score.", file=sys.stderr)
    print(on_one_line(f"Report: {arguments.out / 'report.html'}"))
    return 2 if failed else 0


def _write_card(arguments: argparse.Namespace, results: Mapping[str, Any]) -> None:
    from lyrics.evaluation.card import card_results
    from lyrics.utils.model_card import add_results

    if not add_results(arguments.model, card_results(results)):
        print(f"The card in {on_one_line(arguments.model)} was not changed: a person wrote it.", file=sys.stderr)


def _list(arguments: argparse.Namespace) -> int:
    from lyrics.evaluation.tasks import TASKS

    if arguments.json:
        rows = [
            {
                "name": task.name,
                "title": task.title,
                "splits": list(task.splits),
                "default": list(task.default),
                "metric": task.metric.name,
                "variant": task.metric.variant,
                "prompt": task.prompt,
                "max_new_tokens": task.max_new_tokens,
                "data": sorted({source.data for source in task.splits.values()}),
            }
            for task in TASKS.values()
        ]
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    for task in TASKS.values():
        splits = ", ".join(name if name in task.default else f"({name})" for name in task.splits)
        data = " and ".join(dict.fromkeys(source.data for source in task.splits.values()))
        print(f"{task.name}: {task.title}\n  splits: {splits}\n  metric: {task.metric.name}, {task.metric.variant}")
        print(f"  data:   {data}\n  prompt: {task.prompt!r}, at most {task.max_new_tokens} tokens")
    print(evaluate_retrieval.DESCRIPTION)
    print("\nSplits in brackets are evaluated where they are named (TASK/SPLIT).")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from lyrics.evaluation.comparison import compare_runs

    comparison = compare_runs(*arguments.compare)
    if arguments.out is not None:
        comparison.write(arguments.out)
    print(json.dumps(comparison.as_dict(), ensure_ascii=False) if arguments.json else printable(comparison.describe()))
    return 0
