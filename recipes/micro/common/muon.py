"""Muon for the weights of linear layers, AdamW for all other parameters.

Muon makes every update of a matrix orthogonal, so that all of its directions learn equally fast. Transformers of this
size then train from scratch in far fewer steps than with AdamW alone. `torch.optim.Muon` computes in bfloat16, which is
ten times slower on a CPU without bfloat16 instructions. This one computes in the dtype of the weights, and all matrices
of the same shape in one batch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from transformers import Trainer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic polynomial that moves singular values towards 1
_ITERATIONS = 5


class Muon(Optimizer):
    """Nesterov momentum with orthogonal updates (Jordan and others, 2024).

    Args:
        matrices: parameters of shape (rows, columns), or parameter groups.
        lr: learning rate, the spectral norm of an update. It is multiplied by `sqrt(rows / columns)` if that exceeds 1.
        weight_decay: decoupled weight decay, as in AdamW.
        momentum: weight of the past gradients, in [0, 1).
    """

    def __init__(self, matrices: Iterable[Any], lr: float, weight_decay: float = 0.0, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update all matrices that have a gradient."""
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
    """Return approximately `U @ V.mT` of the singular value decompositions, by Newton-Schulz iteration.

    Args:
        matrices: float tensor of shape (..., rows, columns).
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    result = matrices if wide else matrices.mT
    result = result / result.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    first, third, fifth = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = result @ result.mT
        result = first * result + (third * gram + fifth * gram @ gram) @ result
    return result if wide else result.mT


class MuonWithAdamW(Optimizer):
    """Muon and AdamW as one optimizer, so that a learning rate scheduler reaches the groups of both.

    Args:
        model: model whose trainable parameters are updated: the weights of linear layers by Muon, all others
            (embeddings, norms, biases, convolutions) by AdamW.
        learning_rate: learning rate of AdamW.
        matrix_learning_rate: learning rate of Muon. The size of its updates does not depend on the gradient.
        weight_decay: weight decay of both. Norms and biases have none.
        rates_of: learning rates of Muon for parts of the model, by module name, such as `"mqformer"`.
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        matrix_learning_rate: float,
        weight_decay: float = 0.0,
        rates_of: Mapping[str, float] | None = None,
    ) -> None:
        rates: dict[torch.Tensor, float] = {}
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                of_parts = (rate for part, rate in (rates_of or {}).items() if part in name.split("."))
                rates[module.weight] = next(of_parts, matrix_learning_rate)
        for module in model.modules():
            if isinstance(module, nn.Embedding):  # an output layer may share its weight
                rates.pop(module.weight, None)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        others = [parameter for parameter in trained if parameter not in rates]
        groups = [
            {"params": [one for one in others if one.ndim > 1], "weight_decay": weight_decay},
            {"params": [one for one in others if one.ndim <= 1], "weight_decay": 0.0},
        ]
        self._parts: list[Optimizer] = [AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))]
        by_rate: dict[float, list[nn.Parameter]] = defaultdict(list)
        for parameter in trained:
            if parameter in rates:
                by_rate[rates[parameter]].append(parameter)
        if by_rate:
            groups = [{"params": matrices, "lr": rate} for rate, matrices in by_rate.items()]
            self._parts.append(Muon(groups, lr=matrix_learning_rate, weight_decay=weight_decay))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update all parameters that have a gradient."""
        loss = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both optimizers."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the states of both optimizers."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def use_muon(trainer: Trainer, matrix_learning_rate: float, rates_of: Mapping[str, float] | None = None) -> None:
    """Replace the optimizer of a trainer that has not trained yet."""
    arguments, model = trainer.args, cast(nn.Module, trainer.model)
    trainer.optimizer = MuonWithAdamW(
        model, arguments.learning_rate, matrix_learning_rate, arguments.weight_decay, rates_of
    )
