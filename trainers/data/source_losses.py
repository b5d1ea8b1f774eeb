"""Losses of a mixture by data set: sums over tokens of all micro-batches and ranks since the last log entry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator


class LossesBySource:
    """Sums of token losses by data set, on the device, so that no step waits for them.

    Args:
        names: names of the data sets, the same on every rank.
        device: device of the sums.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = list(names)
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self._sums = torch.zeros(len(self.names), 2, dtype=torch.float64, device=device)  # loss, tokens

    def add(self, sources: Sequence[str], log_probs: torch.Tensor, mask: torch.Tensor) -> None:
        """Add a micro-batch.

        Args:
            sources: names of the data sets of the B rows.
            log_probs: (B, L) log-probabilities of the labels.
            mask: (B, L) bool, whether a position has a label.
        """
        numbers = torch.tensor([self._numbers[name] for name in sources], device=log_probs.device)
        losses = -(log_probs.detach() * mask).sum(1, dtype=torch.float64)
        sums = torch.stack([losses, mask.sum(1).double()], dim=1)  # (B, 2)
        self._sums.index_add_(0, numbers.to(self._sums.device), sums.to(self._sums.device))

    def pop(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the mean loss of each data set since the last call, without those that had no token."""
        reduced: torch.Tensor = accelerator.reduce(self._sums, "sum")  # pyright: ignore[reportAssignmentType]
        sums = reduced.tolist()
        self._sums = torch.zeros_like(self._sums)
        return {f"loss_{name}": loss / tokens for name, (loss, tokens) in zip(self.names, sums, strict=True) if tokens}
