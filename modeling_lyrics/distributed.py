"""Collective operations of distributed training; on one process they return their input.

Every rank must call these functions in the same order and with tensors of equal shape: batches are equally large.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import distributed as dist


def num_ranks() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def this_rank() -> int:
    """Return the rank of this process."""
    return dist.get_rank() if num_ranks() > 1 else 0


def gather(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate the rows of all ranks, (B, ...) -> (ranks * B, ...), without gradient."""
    if num_ranks() == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(num_ranks())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


def gather_with_gradient(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate the rows of all ranks; gradients flow back to the rank that computed the rows.

    Gradients are summed over ranks. Data parallelism averages them afterwards, which gives the gradient of the joined
    batch.
    """
    return rows if num_ranks() == 1 else _Gather.apply(rows)


def mean_over_ranks(total: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return this rank's share of a mean over all ranks.

    Data parallelism averages the shares over ranks, which gives the mean of the joined batch. A count of 0 on all ranks
    gives 0, with a gradient graph.

    Args:
        total: scalar, the sum of a loss on this rank.
        count: scalar, the number of summands on this rank.
    """
    count = count.detach().float()
    if num_ranks() > 1:
        count = count.clone()
        dist.all_reduce(count)
    return total * num_ranks() / count.clamp(min=1)


class _Gather(torch.autograd.Function):
    """Autograd function of `gather_with_gradient`."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        """Concatenate the rows of all ranks."""
        return gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Sum the gradients of all ranks, and return those of this rank's rows."""
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(num_ranks())[this_rank()]


class _Exchange(torch.autograd.Function):
    """Autograd function of `RowExchange.bring`; the backward pass sends gradients the other way."""

    @staticmethod
    def forward(ctx: Any, leaving: torch.Tensor, sent: list[int], received: list[int]) -> torch.Tensor:
        """Send rows to other ranks, and return the received rows."""
        ctx.sent, ctx.received = sent, received
        return _all_to_all(leaving, sent, received)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Send the gradients of received rows back."""
        return _all_to_all(gradient, ctx.received, ctx.sent), None, None


def _all_to_all(leaving: torch.Tensor, sent: list[int], received: list[int]) -> torch.Tensor:
    """Send rows to each rank, in the order of ranks, and return the rows from each rank."""
    arriving = leaving.new_empty(sum(received), *leaving.shape[1:])
    dist.all_to_all_single(arriving, leaving.contiguous(), received, sent)
    return arriving


class RowExchange:
    """An exchange of rows between ranks: each rank receives the rows of others that it wants, and no more.

    Attributes:
        rows: int64 tensor of shape (R,), position of each wanted row in this rank's rows followed by the received ones.
    """

    def __init__(self, wanted: Sequence[Sequence[int]], batch_size: int, device: torch.device) -> None:
        """Plan an exchange.

        Args:
            wanted: list of row indices for each rank, counted over the joined batch.
            batch_size: number of rows of each rank.
            device: device of the index tensors.
        """
        me = this_rank()
        travelling = [sorted({row for row in rows if row // batch_size != rank}) for rank, rows in enumerate(wanted)]
        leaving = [[row % batch_size for row in rows if row // batch_size == me] for rows in travelling]
        coming = travelling[me]
        places = {row: batch_size + place for place, row in enumerate(coming)}
        rows = [row % batch_size if row // batch_size == me else places[row] for row in wanted[me]]
        self.rows = torch.tensor(rows, dtype=torch.long, device=device)
        self._leaving = torch.tensor(list(chain(*leaving)), dtype=torch.long, device=device)
        self._sent = [len(rows) for rows in leaving]
        self._received = [sum(row // batch_size == rank for row in coming) for rank in range(len(wanted))]

    def bring(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rows of other ranks that this rank wants, (B, ...) -> (M, ...); gradients flow back."""
        return _Exchange.apply(tensor.index_select(0, self._leaving), self._sent, self._received)
