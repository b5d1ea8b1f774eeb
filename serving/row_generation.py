"""Generation for several rows at once, each with its own length, draws, stop strings and end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from transformers import (
    LogitsProcessor,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..processing_lyrics.reasoning import ReasoningSplitter
from .generation_options import GenerationOptions
from .token_text import TokenText

FinishReason = Literal["stop", "length", "cancelled", "timeout"]


class Row:
    """An answer that is being generated.

    Args:
        options: options of the answer.
        max_new_tokens: largest number of tokens, which the model's context may make smaller than that of the options.
        eos_token_ids: set of the tokens that end an answer.
        decode: function from token ids to text without special tokens.
        write: function that is called with each piece of text, and with an empty one for each token of reasoning.
        is_cancelled: function that says whether nobody wants the answer any more.
        deadline: time of `time.monotonic` at which the answer ends as it is, or `None`.
        splitter: holds reasoning back from the text, or `None`.

    Attributes:
        text: `TokenText` of the answer.
        finish_reason: reason for the end: `"stop"` (the model or a stop string ended it), `"length"`, `"cancelled"` or
            `"timeout"`; `None` before.
    """

    def __init__(
        self,
        options: GenerationOptions,
        max_new_tokens: int,
        eos_token_ids: frozenset[int],
        decode: Callable[[list[int]], str],
        write: Callable[[str], None],
        is_cancelled: Callable[[], bool],
        deadline: float | None,
        splitter: ReasoningSplitter | None = None,
    ) -> None:
        self.options = options
        self.max_new_tokens = max_new_tokens
        self.text = TokenText(decode, options.stop, splitter)
        self.finish_reason: FinishReason | None = None
        self._eos_token_ids = eos_token_ids
        self._write = write
        self._is_cancelled = is_cancelled
        self._deadline = deadline
        self._draw = None if options.temperature == 0 else _Draw(options)

    def choose(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores (1, vocabulary) of the next token, in which a drawn one is the only one possible."""
        return scores if self._draw is None else self._draw(input_ids, scores)

    def take(self, token_id: int) -> None:
        """Take the next token, write its text, and notice the end."""
        if self.finish_reason is None:
            self._send(self.text.add(token_id))
            if token_id in self._eos_token_ids or self.text.stopped:
                self.finish_reason = "stop"
            elif len(self.text.token_ids) >= self.max_new_tokens:
                self.finish_reason = "length"
            else:
                self.finish_reason = self.interrupted()
            if self.finish_reason is not None:
                self._send(self.text.finish())

    def take_all(self, token_ids: Sequence[int], interrupted: FinishReason | None) -> None:
        """Take a whole answer, as beams find it."""
        for token_id in token_ids:
            self.take(token_id)
        if self.finish_reason is None:
            self.finish_reason = interrupted or "length"
            self._send(self.text.finish())

    def interrupted(self) -> FinishReason | None:
        """Return why the answer ends from outside, or `None`."""
        if self._is_cancelled():
            return "cancelled"
        return "timeout" if self._deadline is not None and time.monotonic() >= self._deadline else None

    def _send(self, piece: str) -> None:
        if piece or self.text.waits:
            self._write(piece)


class _Draw:
    """Draws tokens with a generator of its own, so that the draws do not depend on the other rows."""

    def __init__(self, options: GenerationOptions) -> None:
        self._warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(float(options.temperature))]
        if options.top_k is not None:
            self._warpers.append(TopKLogitsWarper(options.top_k))
        if options.top_p < 1:
            self._warpers.append(TopPLogitsWarper(float(options.top_p)))
        self._generator = torch.Generator()
        self._generator.manual_seed(options.seed or 0)

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        warped: Any = scores - scores.amax(-1, keepdim=True)  # so that a tiny temperature does not make infinities
        for warper in self._warpers:
            warped = warper(input_ids, warped)
        probabilities = warped.float().softmax(-1).cpu()  # drawn there, a seed means the same on every device
        drawn = torch.multinomial(probabilities, 1, generator=self._generator)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn.to(scores.device), 0.0)


class RowChoice(LogitsProcessor):
    """Lets each row choose its next token: the most probable one, or a drawn one."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores (B, vocabulary) of the next tokens."""
        chosen = [
            row.choose(input_ids[index : index + 1], scores[index : index + 1]) for index, row in enumerate(self.rows)
        ]
        return torch.cat(chosen)


class RowEnds(StoppingCriteria):
    """Gives each row its new token, and ends the rows that are finished."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> Any:
        """Return which rows are finished, a bool tensor of shape (B,)."""
        for row, token_id in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
            row.take(token_id)
        return torch.tensor([row.finish_reason is not None for row in self.rows], device=input_ids.device)


class Interruption(StoppingCriteria):
    """Ends a search with beams when none of its rows is wanted any more, or in time."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> Any:
        """Return whether the search ends, the same for all beams, a bool tensor of shape (B * beams,)."""
        ends = all(row.interrupted() is not None for row in self.rows)
        return torch.full((len(input_ids),), ends, device=input_ids.device)
