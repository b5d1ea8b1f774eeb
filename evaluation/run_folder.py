"""Folder of an evaluation: what it was made with, the answers so far, and the results.

    run.json                     model and refiner
    objects/                     objects of refined images
    <task>-<split>/run.json      samples, prompt and decoding
    <task>-<split>/answers-0.jsonl   answers in the order in which they came, one file for each process
    <task>-<split>/samples.jsonl, results.json, submission*
    results.json, report.html

A killed run leaves whole lines, of which the last may be cut, and whole files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..utils.atomic_files import is_aside, naming_disk_errors, remove_leftovers, write_file
from ..utils.folder_lock import LOCK_NAME
from ..utils.run_record import compare_rows, compare_values
from .samples import Response
from .tasks import TASKS, TaskData, Unit

FORMAT = 1
RUN, RESULTS, SAMPLES, REPORT, OBJECTS = "run.json", "results.json", "samples.jsonl", "report.html", "objects"


class RunFolder:
    """Folder of an evaluation.

    Args:
        path: path of the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def of(self, unit: Unit) -> Path:
        """Return the folder of a unit."""
        return self.path / unit.folder_name

    # ---------------------------------------------------------------- records

    def check_place(self) -> None:
        """Check that the folder is new, empty, or that of an evaluation.

        Raises:
            ValueError: it is a file, or holds something else.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ValueError(f"--out {self.path} is a file, and not a folder.")
        names = [name for name in os.listdir(self.path) if not name.startswith(LOCK_NAME) and not is_aside(name)]
        if names and RUN not in names:
            raise ValueError(f"--out {self.path} exists, and is not the folder of an evaluation: {RUN} is missing.")

    def start(self, record: Mapping[str, Any]) -> None:
        """Begin an evaluation or resume it; a unit's record is that of `start_unit`. Hold a `FolderLock`.

        Args:
            record: mapping of `model` and `refiner`.

        Raises:
            ValueError: the folder was made with something else; the message names what differs.
        """
        for folder in (self.path, *(self.path / OBJECTS).glob("*")):
            remove_leftovers(folder)
        saved = self._read_or_write(self.path / RUN, {"format": FORMAT, **record})
        found = []
        for name, title in (("model", "another model"), ("refiner", "another refiner")):
            found += compare_values(saved.get(name), record[name], title, name)
        self._refuse(found)

    def start_unit(self, data: TaskData, decoding: Mapping[str, Any]) -> None:
        """Begin a unit or resume it.

        Raises:
            ValueError: its answers are to other samples, prompts or options; the message names what differs.
        """
        folder = self.of(data.unit)
        folder.mkdir(exist_ok=True)
        remove_leftovers(folder)
        options = {"prompt": data.unit.task.prompt, "decoding": dict(decoding)}
        record = {"format": FORMAT, "samples": data.hashes(), **options}
        root = os.path.abspath(data.unit.root if data.unit.root.is_dir() else data.unit.root.parent)
        saved = self._read_or_write(folder / RUN, {**record, "root": root})
        found = compare_rows(saved.get("samples", []), record["samples"], "sample")
        before = {name: saved.get(name) for name in options}
        found += compare_values(before, options, "other options")
        self._refuse([f"{one} for {data.unit.name}" for one in found])
        if saved.get("root") != root:  # the same data in another place
            write_json(folder / RUN, {**record, "root": root})

    def _read_or_write(self, path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the saved record; write this one where there is none."""
        try:
            saved = json.loads(path.read_text("utf-8"))
            if not isinstance(saved, dict) or saved.get("format") != FORMAT:
                raise ValueError("it is no record of this version")
        except FileNotFoundError:
            write_json(path, record)
            return json.loads(json.dumps(record))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}. Give another --out, or remove the folder.") from error
        return saved

    def _refuse(self, differences: Sequence[str]) -> None:
        if differences:
            found = "; ".join(differences)
            raise ValueError(f"--out {self.path} was written with {found}. Give another folder, or remove it.")

    # ---------------------------------------------------------------- answers

    def read_responses(self, unit: Unit, count: int) -> dict[int, Response]:
        """Return the answers of all processes so far, by the number of their sample; an answer replaces an error.

        Args:
            unit: unit.
            count: number of samples.

        Raises:
            ValueError: a line is damaged; the message names it.
        """
        found: dict[int, Response] = {}
        for path in sorted(self.of(unit).glob("answers-*.jsonl")):
            for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):  # the last one is empty, or cut
                try:
                    values = json.loads(line)
                    sample, response = int(values["sample"]), Response.from_dict(values)
                    if not 0 <= sample < count:
                        raise ValueError(f"there is no sample {sample}")
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(f"{path}, line {number} is damaged: {error}.") from error
                if sample not in found or found[sample].error is not None:
                    found[sample] = response
        return found

    @contextmanager
    def answers_file(self, unit: Unit, rank: int) -> Iterator[IO[bytes]]:
        """Open a process's file of answers for appending, without the line that a killed process has cut."""
        path = self.of(unit) / f"answers-{rank}.jsonl"
        with naming_disk_errors(path), open(path, "a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            yield file
            file.flush()
            os.fsync(file.fileno())

    # ---------------------------------------------------------------- results

    def root_of(self, name: str) -> Path | None:
        """Return the folder of the data of a unit, by its name, or `None` where it is not known or gone."""
        try:
            root = Path(json.loads((self.path / name.replace("/", "-") / RUN).read_text("utf-8"))["root"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return root if root.is_dir() else None

    def samples(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of a unit's samples, by its name."""
        with open(self.path / name.replace("/", "-") / SAMPLES, encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def units(self) -> dict[str, dict[str, Any]]:
        """Return the results of all units that are complete, by name, in the order of the table of tasks."""
        found = [json.loads(path.read_text("utf-8")) for path in self.path.glob(f"*/{RESULTS}")]
        order = [f"{task.name}/{split}" for task in TASKS.values() for split in task.splits]
        return {one["name"]: one for one in sorted(found, key=lambda one: order.index(one["name"]))}


def write_response(file: IO[bytes], sample: int, response: Response) -> None:
    """Append the answer to a sample."""
    line = json.dumps({"sample": sample, **response.to_dict()}, ensure_ascii=False)
    file.write(line.encode("utf-8", "replace") + b"\n")
    file.flush()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is complete or absent."""
    with write_file(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file that is complete or absent; its folder is created."""
    path.parent.mkdir(exist_ok=True)
    with write_file(path, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)
