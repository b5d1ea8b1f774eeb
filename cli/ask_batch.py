"""`lyrics ask --batch`: a file of questions, answered row by row into another file, which can be resumed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .common import generation_options, load_assistant, load_processor, on_one_line, printable, quiet_loading

if TYPE_CHECKING:
    from lyrics import Answer


def run_batch(arguments: argparse.Namespace) -> int:
    """Answer the rows that have no line in the output yet, and with `--retry-failures` those that failed.

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
        failed = _find_failures(arguments.out, file) if arguments.retry_failures else []
        numbers = [*failed, *range(done + 1, len(rows) + 1)]
        waiting = (_checked(rows[number - 1], guard) for number in numbers)
        answers = assistant.ask_many(waiting, batch_size=arguments.batch_size, on_error="yield", **options)
        with _open_retries(arguments.out) if failed else nullcontext(file) as retries:
            _write_answers([retries if number <= done else file for number in numbers], rows, numbers, answers)
        _merge_retries(arguments.out, file)
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
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):  # replaced between open and lock
            raise ValueError(f"--out {path} was being written by another process. Repeat the command.")
        yield file
        file.flush()
        os.fsync(file.fileno())


def _record_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.run.json")


def _resume(out: Path, file: IO[bytes], record: dict[str, Any]) -> int:
    """Return how many rows have a line, after a check that these were made with the same things.

    The last line is removed where a killed process has left a part of it.
    """
    from lyrics.utils.atomic_files import write_file

    file.seek(0)
    content = file.read()
    place = _record_path(out)
    if not content:
        _retries_path(out).unlink(missing_ok=True)  # of an output that was removed
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
    files: list[IO[bytes]], rows: list[dict[str, Any]], numbers: list[int], answers: Iterator[Answer | Exception]
) -> None:
    """Append one line for each answer, and name those that fail.

    Args:
        files: list of the files that the lines are appended to, one for each answer.
        rows: list of all rows.
        numbers: list of the numbers of the rows that are asked, from 1 on, one for each answer.
        answers: iterator of answers.
    """
    from tqdm import tqdm

    told = set[str]()
    done = len(rows) - len(numbers)
    with tqdm(total=len(rows), initial=done, desc="Answering", disable=None) as progress:
        for file, number, answer in zip(files, numbers, answers, strict=True):
            row = rows[number - 1]
            line: dict[str, Any] = {"row": number} | ({"id": row["id"]} if "id" in row else {})
            if isinstance(answer, Exception):
                line["error"] = f"{answer}" or type(answer).__name__
                tqdm.write(on_one_line(f"lyrics ask: row {number}: {line['error']}"), file=sys.stderr)
            else:
                found = answer.to_dict()
                line |= {
                    name: found[name] for name in ("answer", "boxes", "finish_reason", "reasoning") if name in found
                }
                for notice in [one for one in answer.notices if one not in told]:
                    told.add(notice)
                    tqdm.write(f"Note: {printable(notice)}", file=sys.stderr)
            file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            file.flush()
            progress.update()


# ---------------------------------------------------------------- rows that are asked again

# Their new lines are appended to a file beside the output, and take the places of the old ones at the end. The output
# then has one line for each row at any time, and answers of a killed process are kept.


def _retries_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.retries")


@contextmanager
def _open_retries(out: Path) -> Iterator[IO[bytes]]:
    """Open the file of retries for appending, without the part of a line that a killed process has left."""
    with open(_retries_path(out), "a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        yield file


def _read_lines(out: Path, file: IO[bytes]) -> tuple[list[bytes], bool]:
    """Return the lines of the output with those of the file of retries in their places, and whether there is one.

    Raises:
        ValueError: the file of retries is damaged.
    """
    file.seek(0)
    lines = file.readlines()
    place = _retries_path(out)
    try:
        retried = place.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return lines, False
    try:
        for line in retried:
            if line.endswith(b"\n"):  # else a killed process has left a part of it
                lines[json.loads(line)["row"] - 1] = line
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{place} is damaged: {error}. Remove it.") from error
    return lines, True


def _find_failures(out: Path, file: IO[bytes]) -> list[int]:
    """Return the numbers of the rows that failed, counted from 1."""
    lines, _ = _read_lines(out, file)
    return [number for number, line in enumerate(lines, 1) if "error" in json.loads(line)]


def _merge_retries(out: Path, file: IO[bytes]) -> None:
    """Put the lines of the file of retries into their places in the output, and remove that file.

    The output becomes another file, so that `file` can no longer be written.
    """
    from lyrics.utils.atomic_files import write_file

    lines, are_retried = _read_lines(out, file)
    if are_retried:
        with write_file(out.resolve()) as written:  # a link to the output stays one
            written.writelines(lines)
        _retries_path(out).unlink()


# ---------------------------------------------------------------- the end


def _report(arguments: argparse.Namespace, count: int) -> int:
    """Print how many rows were answered, in this and in earlier runs, and return the exit code."""
    with open(arguments.out, encoding="utf-8") as file:
        failed = sum("error" in json.loads(line) for line in file)
    if arguments.json:
        print(json.dumps({"rows": count, "failed": failed, "out": str(arguments.out)}))
    else:
        hint = "their lines say why; --retry-failures tries them again"
        failures = f", {failed} failed ({hint})" if failed else ""
        print(on_one_line(f"{count} rows{failures}: {arguments.out}"))
    return 2 if failed else 0
