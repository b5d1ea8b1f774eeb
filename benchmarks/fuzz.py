"""Random inputs, most of them hostile: every one gets a result or an error that says what is wrong.

Input n of a seed is always the same: of two hundred inputs, 150 are text for the parser and its neighbours, 38 are
values (arrays as images, tags, visual objects, rows of training data), nine go through the processor (prompts, chats,
images, labels), two are a store or an adapter with damaged files, and one is such a checkpoint. With `--kind`, all
are of one kind; `metrics`, answers for the parsers of the metrics, comes by that alone. Anything but a
normal result, a ValueError, an OSError, an ImportError of a library that a checkpoint asks for, or a TemplateError of
Jinja is a finding: another exception, an invariant that does not hold, an error without a message, a process that dies
or hangs, a program that is started, a pickle that runs, a file written elsewhere. Findings are printed with the command
that repeats them, and the exit code is then 1.

    python benchmarks/fuzz.py --count 1000000 --processes 2
    python benchmarks/fuzz.py --seed 3 --start 123456 --count 1     # repeat one input
    python benchmarks/fuzz.py --kind metrics --count 1000000        # answers for the metrics
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

KINDS = {
    "text": 150,
    "values": 38,
    "processor": 9,
    "folder": 2,
    "loader": 1,
    "metrics": 0,
}  # and how often each is drawn
CHUNK = 250  # inputs that a process is given at once
TIME_LIMIT = 30  # seconds that an input may take
CHUNK_LIMIT = 900  # seconds that all inputs of a chunk may take
MEMORY_LIMIT = 10 * 2**30  # bytes of address space that a process may take beside what it starts with
STARTED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn", "pickle.find_class")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Finding(BaseException):
    """What no handler of ordinary errors may swallow."""


class Worker:
    """Everything that a process needs for any input."""

    def __init__(self, bases: Path, kind: str | None) -> None:
        import torch
        from transformers.utils import logging

        from lyrics.assets import random_parts

        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        logging.set_verbosity(logging.CRITICAL)
        logging.disable_progress_bar()
        self.kind = kind
        self.bases, self.work = bases, bases / f"worker-{os.getpid()}"
        self.work.mkdir(exist_ok=True)
        os.chdir(self.work)
        self.processor = random_parts()[1]
        self.watching = False
        self.current = os.open(self.bases / f"current-{os.getpid()}", os.O_WRONLY | os.O_CREAT)
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (pages + MEMORY_LIMIT, most))
        sys.addaudithook(self._watch)
        signal.signal(signal.SIGALRM, self._too_long)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit events: no program is started, no pickle looks for code, nothing is written elsewhere."""
        if not self.watching:
            return
        if event in STARTED:
            raise Finding(f"{event}{arguments}")
        if event == "open" and isinstance(arguments[0], str) and (arguments[2] or 0) & WRITING:
            path = os.path.abspath(arguments[0])
            if not path.startswith(f"{self.bases}/") and path != os.devnull and not path.endswith((".pyc", ".lock")):
                raise Finding(f"{path} was opened for writing")

    def _too_long(self, *_: Any) -> None:
        raise Finding(f"took more than {TIME_LIMIT} seconds")

    def check(self, kind: str, draw: random.Random) -> None:
        """Run one input."""
        from fuzz_files import check_loader
        from fuzz_metrics import check_metrics
        from fuzz_text import check_processor, check_text
        from fuzz_values import check_folder, check_values

        if kind == "text":
            check_text(draw)
        elif kind == "processor":
            check_processor(draw, self.processor)
        elif kind == "values":
            check_values(draw, self.processor)
        elif kind == "folder":
            check_folder(draw, self.bases, self.work)
        elif kind == "metrics":
            check_metrics(draw)
        else:
            check_loader(draw, self.bases, self.work)

    def run(self, seed: int, number: int) -> tuple[str, str | None]:
        """What became of an input, and the finding, if it is one."""
        draw = random.Random(f"{seed}:{number}")  # noqa: S311  (repeatable, and no secret)
        kind = draw.choices(tuple(KINDS), tuple(KINDS.values()))[0]
        kind = self.kind or kind
        os.pwrite(self.current, f"{number:20d}".encode(), 0)
        signal.alarm(TIME_LIMIT)
        self.watching = True
        try:
            self.check(kind, draw)
            return f"{kind}: result", None
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            if isinstance(error, MemoryError) or "Allocator" in str(error):
                return f"{kind}: beyond the memory limit", None
            if is_answer(kind, error):
                return f"{kind}: {type(error).__name__}", None
            return f"{kind}: FINDING", traceback.format_exc()
        finally:
            self.watching = False
            signal.alarm(0)


def is_answer(kind: str, error: BaseException) -> bool:
    """Whether an exception tells what is wrong with the input; with a file, also where it is."""
    from jinja2.exceptions import TemplateError

    if kind == "metrics":
        return False
    if isinstance(error, TemplateError):
        return True
    if not isinstance(error, ValueError | OSError | ImportError) or isinstance(error, UnicodeError):
        return False
    if kind == "folder" and isinstance(error, OSError | ImportError):
        return bool(str(error).strip())  # what an adapter asks for: its base model, or a library
    return any(word in str(error) for word in ("checkpoint", "picture.safetensors", "chat template")) or (
        kind not in ("loader", "folder") and bool(str(error).strip())
    )


WORKER: Worker | None = None


def start_worker(bases: Path, kind: str | None) -> None:
    """Called once in each process."""
    global WORKER
    WORKER = Worker(bases, kind)


def run_chunk(seed: int, start: int, count: int) -> tuple[Counter[str], list[tuple[int, str]]]:
    """Outcomes and findings of consecutive inputs."""
    assert WORKER is not None
    faulthandler.dump_traceback_later(CHUNK_LIMIT, exit=True)  # for what no signal interrupts
    outcomes: Counter[str] = Counter()
    findings = []
    for number in range(start, start + count):
        outcome, finding = WORKER.run(seed, number)
        outcomes[outcome] += 1
        if finding is not None:
            findings.append((number, finding))
    faulthandler.cancel_dump_traceback_later()
    return outcomes, findings


def report(options: argparse.Namespace, number: int, finding: str) -> None:
    """One finding, with the command that repeats it."""
    shown = finding.encode("ascii", "backslashreplace").decode()
    kind = f" --kind {options.kind}" if options.kind else ""
    command = f"python benchmarks/fuzz.py --seed {options.seed} --start {number} --count 1{kind}"
    print(f"\nFINDING  {command}\n{shown}", flush=True)


def run_all(options: argparse.Namespace, bases: Path) -> tuple[Counter[str], int]:
    """All inputs, in several processes."""
    from tqdm import tqdm

    outcomes: Counter[str] = Counter()
    found = 0
    end = options.start + options.count
    chunks = ((start, min(CHUNK, end - start)) for start in range(options.start, end, CHUNK))
    with (
        tqdm(total=options.count, unit="input", smoothing=0.05) as bar,
        ProcessPoolExecutor(options.processes, get_context("spawn"), start_worker, (bases, options.kind)) as pool,
    ):
        running: set[Any] = set()
        while True:
            while len(running) < 2 * options.processes and (chunk := next(chunks, None)):
                running.add(pool.submit(run_chunk, options.seed, *chunk))
            if not running:
                return outcomes, found
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                counted, findings = future.result()
                outcomes += counted
                bar.update(counted.total())
                found += len(findings)
                for number, finding in findings:
                    report(options, number, finding)


def main() -> int:
    """Run, count, report."""
    from fuzz_files import write_bases
    from fuzz_values import write_value_bases

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="inputs (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of all inputs (default: 0)")
    parser.add_argument("--start", type=int, default=0, help="number of the first input (default: 0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="(default: one per core)")
    parser.add_argument("--kind", choices=KINDS, help="of all inputs (default: mixed)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bases = Path(folder).resolve()
        write_value_bases(bases, write_bases(bases))
        try:
            outcomes, found = run_all(options, bases)
        except BrokenProcessPool:
            numbers = sorted(int(path.read_text() or -1) for path in bases.glob("current-*"))
            print(f"\nFINDING  a process died at one of the inputs {numbers} of seed {options.seed}")
            return 1
    for outcome, count in sorted(outcomes.items()):
        print(f"{outcome:45} {count:10,}")
    print(f"{outcomes.total():,} inputs of seed {options.seed} from number {options.start:,}: {found} findings")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
