"""The optimizer of the steps: Muon for what multiplies, AdamW for the rest.

Muon makes every update of a matrix orthogonal, so that all of its directions learn equally fast. Transformers of this
size learned from nothing in far fewer steps than with AdamW alone. torch's own computes in bfloat16, which a CPU
without instructions for it does at a tenth of the speed; this one computes in the dtype of the weights, those of a
shape together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic whose iteration brings all singular values near 1
_ITERATIONS = 5


class Muon(Optimizer):
    """Momentum (Nesterov's) whose update of each matrix is made orthogonal (Jordan and others, 2024).

    Args:
        matrices: (rows, columns) each, or groups of them with settings of their own.
        lr: length of an update of a direction, times the root of rows / columns where that is above 1.
        weight_decay: decoupled, as AdamW's.
        momentum: share of the past.
    """

    def __init__(self, matrices: Iterable[Any], lr: float, weight_decay: float = 0.0, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the matrices that have a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for (rows, columns), matrices in by_shape.items():
                updates = torch.stack([self._nesterov(matrix, group["momentum"]) for matrix in matrices])
                rate = group["lr"] * math.sqrt(max(1, rows / columns))
                for matrix, update in zip(matrices, orthogonalize(updates), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=rate)
        return loss

    def _nesterov(self, matrix: nn.Parameter, momentum: float) -> torch.Tensor:
        gradient: Any = matrix.grad
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum)


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """(..., rows, columns) -> about U V^T of their singular value decompositions, by Newton-Schulz iteration."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    result = matrices if wide else matrices.mT
    result = result / result.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    first, third, fifth = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = result @ result.mT
        result = first * result + (third * gram + fifth * gram @ gram) @ result
    return result if wide else result.mT


class MuonWithAdamW(Optimizer):
    """Both as one optimizer, whose groups a scheduler of learning rates can see.

    Args:
        model: whose trainable parameters it updates: the weights of its linear layers by Muon, all others (embeddings,
            norms, biases, convolutions) by AdamW.
        learning_rate: of AdamW.
        matrix_learning_rate: of Muon; its updates are as large whatever the gradient.
        weight_decay: of both; norms and biases have none.
        rates_of: Muon's in parts of the model by their names, such as `"mqformer"`, where they are others.
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        matrix_learning_rate: float,
        weight_decay: float = 0.0,
        rates_of: Mapping[str, float] | None = None,
    ) -> None:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        rates = {
            id(module.weight): _rate_of(name, rates_of or {}, matrix_learning_rate)
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
        }
        tied = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        matrices = rates.keys() - tied
        others = [parameter for parameter in trained if id(parameter) not in matrices]
        self._parts: list[Optimizer] = [
            AdamW(
                [
                    {"params": [one for one in others if one.ndim > 1], "weight_decay": weight_decay},
                    {"params": [one for one in others if one.ndim <= 1], "weight_decay": 0.0},
                ],
                lr=learning_rate,
                betas=(0.9, 0.95),
            )
        ]
        by_rate: dict[float, list[nn.Parameter]] = defaultdict(list)
        for parameter in trained:
            if id(parameter) in matrices:
                by_rate[rates[id(parameter)]].append(parameter)
        if by_rate:
            groups = [{"params": multiplied, "lr": rate} for rate, multiplied in by_rate.items()]
            self._parts.append(Muon(groups, lr=matrix_learning_rate, weight_decay=weight_decay))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update all parameters."""
        loss = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Of both."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of both."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def _rate_of(name: str, rates_of: Mapping[str, float], otherwise: float) -> float:
    """The rate of the part that a module of this name belongs to."""
    return next((rate for part, rate in rates_of.items() if part in name.split(".")), otherwise)


def use_muon(trainer: Any, matrix_learning_rate: float, rates_of: Mapping[str, float] | None = None) -> None:
    """Let a trainer, before it trains, take this optimizer instead of the one that its arguments name."""
    arguments = trainer.args
    trainer.optimizer = MuonWithAdamW(
        trainer.model, arguments.learning_rate, matrix_learning_rate, arguments.weight_decay, rates_of
    )
