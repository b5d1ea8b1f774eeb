"""What the benchmarks share: time, memory and FLOP of steps, the name of the machine, tables as Markdown and JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


@dataclass
class Row:
    """Row of a benchmark: what is measured here, what the peer needs, and how much better we are.

    Attributes:
        what: name of what is measured.
        ours: our number.
        peer: number of the peer, or `None` without one.
        unit: unit of both numbers.
        goal: smallest `ratio` that is wanted, or the number that is wanted with its sign, such as "<= 5".
        spread: share of the median between the quartiles of the repeats, the larger of ours and the peer's.
        more_is_better: bool, whether a larger number is the better one, as of images a second.
        ratio: number of times that ours is better: above 1 we are faster, or need less. Computed from both.
    """

    what: str
    ours: float
    peer: float | None = None
    unit: str = "s"
    goal: float | str | None = None
    spread: float | None = None
    more_is_better: bool = False
    ratio: float | None = None

    def __post_init__(self) -> None:
        if self.ratio is None and self.peer and self.ours:
            self.ratio = self.ours / self.peer if self.more_is_better else self.peer / self.ours


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json FILE` to the options of a benchmark."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there too")


def report(title: str, machine: str, rows: Sequence[Row], file: Path | None = None) -> None:
    """Print the rows as a Markdown table, and write them to a file, which `docs/performance.md` is made of.

    Args:
        title: name of what the rows are about, with sizes.
        machine: name of the machine, such as `name_machine` returns it.
        rows: rows of the table.
        file: JSON file, replaced if it exists; `None` for none.
    """
    print(f"{title}\n{machine}\n")
    print(format_rows(rows))
    print()
    if file is not None:
        versions = {name: metadata.version(name) for name in ("torch", "transformers", "trl", "peft")}
        content = {"title": title, "machine": machine, "python": platform.python_version(), "versions": versions}
        content |= {"rows": [asdict(row) for row in rows]}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def format_rows(rows: Sequence[Row]) -> str:
    """Return a Markdown table."""
    lines = ["| what | ours | peer | times better | goal | spread |", "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        peer = "" if row.peer is None else f"{_digits(row.peer)} {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        goal = "" if row.goal is None else str(row.goal)
        spread = "" if row.spread is None else f"{row.spread:.0%}"
        lines.append(f"| {row.what} | {_digits(row.ours)} {row.unit} | {peer} | {ratio} | {goal} | {spread} |")
    return "\n".join(lines)


def _digits(value: float) -> str:
    """Return a number with three digits at least, and no more behind the point than that needs."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


@dataclass
class Timing:
    """Repeats of a step.

    Attributes:
        wall: list of seconds of each repeat.
        processor: list of seconds of processor time of each, over all threads of this process.
    """

    wall: list[float]
    processor: list[float]

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.wall)

    @property
    def processor_median(self) -> float:
        """Median of the processor time; other processes change it less than they change the seconds."""
        return statistics.median(self.processor)

    @property
    def spread(self) -> float:
        """Share of the median processor time between the quartiles."""
        if len(self.processor) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.processor, n=4, method="inclusive")
        return (high - low) / self.processor_median if self.processor_median else 0.0


def take_turns(
    steps: dict[str, Callable[[], Any]],
    repeats: int,
    device: torch.device,
    before: Callable[[], Any] | None = None,
) -> dict[str, Timing]:
    """Time the steps; they take turns, so that whatever else the machine does meets all of them.

    The first turn warms up and is not counted. `before` is called before each step, and is not timed.
    """
    timings: dict[str, Timing] = defaultdict(lambda: Timing([], []))
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            if before is not None:
                before()
            if device.type == "cuda":
                torch.cuda.synchronize()
            wall, processor = time.perf_counter(), time.process_time()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:
                timings[name].wall.append(time.perf_counter() - wall)
                timings[name].processor.append(time.process_time() - processor)
    return dict(timings)


def measure(steps: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each step, which `take_turns` times."""
    return {name: timing.median for name, timing in take_turns(steps, repeats, device).items()}


def kept_bytes(model: nn.Module, run: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Return what a step keeps for its backward pass; on a GPU its peak above what was there."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run().backward()
        return float(torch.cuda.max_memory_allocated() - before)
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = run()
    del loss
    return float(sum(sizes.values()))


def peak_bytes(step: Callable[[], Any], device: torch.device) -> float:
    """Return the most memory that tensors of a step take at once, above what was there before.

    The step runs twice, so that gradients and the optimizer's state are there before. On a CPU the allocations are
    recorded by torch's profiler; scratch memory of libraries is not among them.
    """
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return float(torch.cuda.max_memory_allocated() - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    recorded: Any = record.profiler
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return float(peak)


def count_flop(step: Callable[[], Any]) -> float:
    """Return the floating-point operations of the matrix products of a step, which runs once."""
    with _flop_counter() as counter:
        step()
    return float(counter.get_total_flops())


def _flop_counter() -> FlopCounterMode:
    """Return torch's counter, with the fused attention of a CPU, which torch does not count."""
    aten: Any = torch.ops.aten
    formulas = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
            sdpa_backward_flop_count(g, q, k, v)
        ),
    }
    return FlopCounterMode(display=False, custom_mapping=formulas)


@dataclass
class Counts:
    """What a step computes and keeps, counted without computing it.

    Attributes:
        flop: floating-point operations of the matrix products, recomputed ones included.
        kept: bytes that are kept for the backward pass, without the weights.
    """

    flop: float
    kept: float


def count(build: Callable[[], tuple[nn.Module, Callable[[], torch.Tensor]]]) -> Counts:
    """Count a step on tensors without numbers, which takes seconds and no memory at any size.

    Args:
        build: function that makes a model, and a function that returns its loss; both run on tensors of a CPU.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, run = build()
        weights = {one.untyped_storage()._cdata for one in model.parameters()}
        kept: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = storage
            return tensor

        with _flop_counter() as counter:
            with saved_tensors_hooks(pack, lambda tensor: tensor):
                loss = run()
            size = sum(storage.nbytes() for storage in kept.values())
            loss.backward()
    return Counts(float(counter.get_total_flops()), float(size))


def name_machine(device: torch.device) -> str:
    """Return the name of the GPU, or that of the processor and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {torch.get_num_threads()} threads"
    return f"{platform.machine()}, {torch.get_num_threads()} threads"
