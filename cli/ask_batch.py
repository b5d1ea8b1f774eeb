"""`lyrics ask --batch`: a file of questions, answered row by row into another file, which can be resumed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .common import generation_options, load_assistant, load_processor, on_one_line, printable, quiet_loading

if TYPE_CHECKING:
    from lyrics import Answer


def run_batch(arguments: argparse.Namespace) -> int:
    """Answer the rows that have no line in the output yet.

    Raises:
        ValueError: a line of the rows is no JSON object, or the output was written with something else.
    """
    from lyrics.datasets_lyrics.path_guard import PathGuard
    from lyrics.utils.run_record import hash_row

    options = generation_options(arguments)
    rows = read_rows(arguments.batch)
    guard = PathGuard.below(arguments.image_root or arguments.batch.parent, fetch_urls=arguments.fetch_urls)
    if not arguments.out.parent.is_dir():
        raise ValueError(f"--out {arguments.out} cannot be written: there is no folder {arguments.out.parent}.")
    if arguments.out.exists() and arguments.out.samefile(arguments.batch):
        raise ValueError(f"--out {arguments.out} is the file of questions itself.")
    quiet_loading()
    processor = load_processor(arguments)
    with (
        load_assistant(arguments, processor, max_batch_size=arguments.batch_size) as assistant,
        _locked(arguments.out) as file,
    ):
        origin = assistant.provenance()
        record = {
            "rows": [hash_row(row) for row in rows],
            "model": origin["model"],
            "refiner": origin["refiner"],
            "options": options | {"image_root": str(arguments.image_root) if arguments.image_root else None},
        }
        done = _resume(arguments.out, file, record)
        waiting = (_checked(row, guard) for row in rows[done:])
        answers = assistant.ask_many(waiting, batch_size=arguments.batch_size, on_error="yield", **options)
        _write_answers(file, rows, done, answers)
    return _report(arguments, len(rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of questions.

    Raises:
        ValueError: a line is no JSON object, or there is none; the message names it.
    """
    rows = []
    with open(path, encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    rows.append(_read_row(path, number, line))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8: {error}") from error
    if not rows:
        raise ValueError(f"{path} holds no question.")
    return rows


def _read_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {number} is a {type(row).__name__} and not an object with a question.")
    return row


def _checked(row: dict[str, Any], guard: Any) -> Any:
    """Return a row with the paths that may be read, or a row that says why not when it is opened."""
    try:
        return guard.check_row(row)
    except ValueError as error:
        return error


# ---------------------------------------------------------------- the output


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Open the output for reading and appending, for one process at a time."""
    from filelock import lock_descriptor

    from lyrics.utils.atomic_files import naming_disk_errors

    with naming_disk_errors(path), open(path, "a+b") as file:
        if not lock_descriptor(file.fileno(), blocking=False):
            raise ValueError(f"--out {path} is being written by another process.")
        yield file
        file.flush()
        os.fsync(file.fileno())


def _record_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.run.json")


def _resume(out: Path, file: IO[bytes], record: dict[str, Any]) -> int:
    """Return how many rows have an answer, after a check that these were made with the same things.

    The last line is removed where a killed process has left a part of it.
    """
    from lyrics.utils.atomic_files import write_file

    file.seek(0)
    content = file.read()
    place = _record_path(out)
    if not content:
        with write_file(place, "w", encoding="utf-8") as written:
            json.dump(record, written)
        return 0
    try:
        saved = json.loads(place.read_text("utf-8"))
        differences = _compare(saved, record)
    except FileNotFoundError:
        problem = f"--out {out} exists, and was not written by `lyrics ask --batch`: {place} is missing."
        raise ValueError(problem) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{place} is damaged: {error}") from error
    if differences:
        raise ValueError(f"--out {out} was written with {'; '.join(differences)}. Give another file, or remove it.")
    file.truncate(content.rfind(b"\n") + 1)
    lines = content.count(b"\n")
    if lines > len(record["rows"]):
        raise ValueError(f"--out {out} has {lines} lines, and there are {len(record['rows'])} questions.")
    return lines


def _compare(saved: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Return what differs between the record of an output and that of this command, in words."""
    from lyrics.utils.run_record import compare_rows, compare_values

    found = compare_rows(saved["rows"], record["rows"])
    for name, title in (("model", "another model"), ("refiner", "another refiner"), ("options", "other options")):
        found += compare_values(saved[name], record[name], title, name)
    return found


def _write_answers(
    file: IO[bytes], rows: list[dict[str, Any]], done: int, answers: Iterator[Answer | Exception]
) -> None:
    """Append one line for each answer, and name those that fail."""
    from tqdm import tqdm

    told = set[str]()
    with tqdm(total=len(rows), initial=done, desc="Answering", disable=None) as progress:
        for number, answer in enumerate(answers, done + 1):
            row = rows[number - 1]
            line: dict[str, Any] = {"row": number} | ({"id": row["id"]} if "id" in row else {})
            if isinstance(answer, Exception):
                line["error"] = f"{answer}" or type(answer).__name__
                tqdm.write(on_one_line(f"lyrics ask: row {number}: {line['error']}"), file=sys.stderr)
            else:
                found = answer.to_dict()
                line |= {name: found[name] for name in ("answer", "boxes", "finish_reason")}
                for notice in [one for one in answer.notices if one not in told]:
                    told.add(notice)
                    tqdm.write(f"Note: {printable(notice)}", file=sys.stderr)
            file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            file.flush()
            progress.update()


def _report(arguments: argparse.Namespace, count: int) -> int:
    """Print how many rows were answered, in this and in earlier runs, and return the exit code."""
    with open(arguments.out, encoding="utf-8") as file:
        failed = sum("error" in json.loads(line) for line in file)
    if arguments.json:
        print(json.dumps({"rows": count, "failed": failed, "out": str(arguments.out)}))
    else:
        failures = f", {failed} failed (their lines say why)" if failed else ""
        print(on_one_line(f"{count} rows{failures}: {arguments.out}"))
    return 2 if failed else 0
