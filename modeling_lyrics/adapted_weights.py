"""Weights that change their shape while they are loaded, and a record of what was done to which.

These are operations of Transformers' weight conversion. Each leaves a line about every weight that it adapts in the
model's `adapted_weights`, which goes into the load report.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.core_model_loading import ConversionOps


class AdaptingOperation(ConversionOps):
    """One weight in, the same weight in another shape out."""

    description: str

    def adapt(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight in its new shape."""
        raise NotImplementedError

    @torch.no_grad
    def convert(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_dict: dict[str, Any], target_patterns: list[str], full_layer_name: str, model: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """As Transformers' loader calls it."""
        weight = next(iter(input_dict.values()))
        weight = weight[0] if isinstance(weight, list) else weight
        model.adapted_weights = {**getattr(model, "adapted_weights", {}), full_layer_name: self.description}
        return {target_patterns[0]: self.adapt(weight)}


class HalveAndRepeat(AdaptingOperation):
    """W -> [W/2 | W/2]: a projection of one state that now reads two, and of their mean what it read before."""

    description = "W became [W/2 | W/2], since it now reads two states instead of one"

    def adapt(self, weight: torch.Tensor) -> torch.Tensor:
        """(out, in) -> (out, 2 * in)."""
        return torch.cat([weight / 2, weight / 2], dim=1)


class AppendRows(AdaptingOperation):
    """Rows for new tokens, each a copy of another token's.

    Args:
        copies: for each new token, in order, the id of the token that it starts from.
    """

    def __init__(self, copies: dict[str, int]) -> None:
        self.copies = copies
        names = ", ".join(f"{token} (a copy of row {row})" for token, row in copies.items())
        self.description = f"rows appended for {names}"

    def adapt(self, weight: torch.Tensor) -> torch.Tensor:
        """(vocabulary, ...) -> (vocabulary + new tokens, ...)."""
        return torch.cat([weight, weight[list(self.copies.values())]])
