"""Processes of one evaluation, as `accelerate launch` starts them: each answers a share of the batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch

from ..utils.optional_imports import import_optional

_PATIENCE = timedelta(days=7)  # one process may have more to do than another


def _no_barrier() -> None:
    """Return, where there is one process."""


@dataclass(frozen=True)
class Ranks:
    """The place of this process among all.

    Attributes:
        index: int, number of this process.
        count: int, number of processes.
        wait: function that returns when all processes have called it.
    """

    index: int = 0
    count: int = 1
    wait: Callable[[], None] = _no_barrier

    @classmethod
    def from_environment(cls) -> Ranks:
        """Return the place among the processes of `accelerate launch` or `torchrun`; alone without them.

        Raises:
            ImportError: there are several processes, and accelerate is not installed.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count < 2:
            return cls()
        # Without a GPU, accelerate takes each process for the only one, unless it is told that they run on CPUs.
        use_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
        on_cpu = use_cpu or not torch.cuda.is_available()
        state = import_optional("accelerate").PartialState(cpu=on_cpu, timeout=_PATIENCE)
        if state.num_processes != count:
            raise RuntimeError(f"There are {count} processes, and accelerate has joined {state.num_processes} of them.")
        return cls(state.process_index, state.num_processes, state.wait_for_everyone)

    @property
    def is_first(self) -> bool:
        """Whether this process writes what belongs to all."""
        return self.index == 0

    def share(self, batches: Sequence[Sequence[int]]) -> list[int]:
        """Return the numbers in this process's batches: whole batches, the same ones whatever the number of processes,
        so that each sample is answered beside the same others."""
        return [number for batch in batches[self.index :: self.count] for number in batch]
