"""Options of an answer: its length, sampling, beams, stop strings and the time that it may take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is generated. Without a temperature the most probable token is taken each time.

    Attributes:
        max_new_tokens: largest number of tokens of the answer.
        temperature: divisor of the logits before a token is drawn; 0 draws nothing.
        top_p: smallest probability mass of the tokens to draw from, in (0, 1].
        top_k: number of the most probable tokens to draw from, or `None` for all.
        num_beams: number of beams; above 1 they are searched instead of drawing.
        seed: seed of the draws, or `None` for another one each time. It alone decides the draws, whatever other
            questions are answered in the same batch.
        stop: strings that end the answer, which does not hold them. One string is a sequence of one.
        timeout: seconds from the call on, after which the answer ends as it is, or `None`.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    num_beams: int = 1
    seed: int | None = None
    stop: Sequence[str] = ()
    timeout: float | None = None

    def __post_init__(self) -> None:
        """Check all values, and make `stop` a tuple."""
        stop: Any = self.stop
        stop = (stop,) if isinstance(stop, str) else stop
        if not isinstance(stop, Sequence) or not all(isinstance(one, str) and one for one in stop):
            raise ValueError(f"stop must be strings that are not empty, got {self.stop!r:.100}.")
        object.__setattr__(self, "stop", tuple(stop))
        for name in ("max_new_tokens", "num_beams", *(("top_k",) if self.top_k is not None else ())):
            _check(name, getattr(self, name), int, 1, math.inf, "a whole number from 1 on")
        _check("temperature", self.temperature, float, 0, 100, "a number from 0 to 100")
        _check("top_p", self.top_p, float, math.ulp(0), 1, "a number above 0 and at most 1")
        if self.seed is not None:
            _check("seed", self.seed, int, 0, LARGEST_SEED, f"a whole number from 0 to {LARGEST_SEED}")
        if self.timeout is not None:
            _check("timeout", self.timeout, float, math.ulp(0), math.inf, "a number of seconds above 0")
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError(
                f"num_beams={self.num_beams} searches for the most probable answer, and temperature="
                f"{self.temperature:g} draws one: choose one of both."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the options that decide the answer, for JSON: all but `timeout`."""
        values = asdict(self) | {"stop": list(self.stop)}
        del values["timeout"]
        return values


def _check(name: str, value: Any, kind: type, low: float, high: float, expected: str) -> None:
    """Raise a `ValueError` that names an option whose value is no number, or outside of its range."""
    kinds = (int,) if kind is int else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{name} must be {expected}, got {value!r}.")
