"""Means of losses and metrics over micro-batches and processes, without waiting for the device in between."""

from __future__ import annotations

from typing import Any

import torch


class RunningAverages:
    """Weighted sums on the device, by name. Every process must add the same names."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, name: str, mean: torch.Tensor, count: torch.Tensor | int = 1) -> None:
        """Add the mean (scalar) of `count` values."""
        total = torch.stack([mean.detach().double() * count, torch.as_tensor(count, device=mean.device).double()])
        self._sums[name] = self._sums[name] + total if name in self._sums else total

    def pop(self, accelerator: Any) -> dict[str, float]:
        """The means over all processes since the last call; what was never counted is left out."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        totals = accelerator.reduce(torch.stack([self._sums[name] for name in names]), "sum").tolist()
        self._sums = {}
        return {name: total / count for name, (total, count) in zip(names, totals, strict=True) if count}
