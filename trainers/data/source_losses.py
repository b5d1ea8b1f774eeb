"""Losses of a mixture by data set: sums over terms of all micro-batches and ranks since the last log entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator


class LossesBySource:
    """Sums of losses by data set, on the device, so that no step waits for them.

    Args:
        names: names of the data sets, the same on every rank.
        device: device of the sums.
        kinds: names of the losses, the same on every rank.
    """

    def __init__(self, names: Sequence[str], device: torch.device, kinds: Sequence[str] = ("loss",)) -> None:
        self.names, self.kinds = list(names), list(kinds)
        self._numbers = {name: number for number, name in enumerate(self.names)}
        shape = (len(self.kinds), len(self.names), 2)  # loss, number of its terms
        self._sums = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, sources: Sequence[str], rows: torch.Tensor, kind: str = "loss") -> None:
        """Add a micro-batch.

        Args:
            sources: names of the data sets of the B rows.
            rows: (B, 2) sum of the terms of each row's loss, and their number.
            kind: name of the loss.
        """
        numbers = torch.tensor([self._numbers[name] for name in sources], device=self._sums.device)
        self._sums[self.kinds.index(kind)].index_add_(0, numbers, rows.detach().to(self._sums))

    def pop(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the mean of each loss and data set since the last call (`KIND_NAME`), without those of no term."""
        reduced: torch.Tensor = accelerator.reduce(self._sums, "sum")  # pyright: ignore[reportAssignmentType]
        sums = reduced.tolist()
        self._sums = torch.zeros_like(self._sums)
        return {
            f"{kind}_{name}": loss / count
            for kind, by_name in zip(self.kinds, sums, strict=True)
            for name, (loss, count) in zip(self.names, by_name, strict=True)
            if count
        }


def losses_of_mixture(dataset: Any, device: torch.device, kinds: Sequence[str] = ("loss",)) -> LossesBySource | None:
    """Return the sums for a mixture, which has `names` and `row_at`; `None` for any other data set."""
    return LossesBySource(dataset.names, device, kinds) if hasattr(dataset, "row_at") else None
