"""Truncation of prompts to a length: what may be dropped, and what is always kept.

Transformers' tokenizers cut anywhere. Here image placeholders, the BOS and the tokens that the tokenizer adds to every
text are kept, and a box or a character is kept or dropped as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from .spatial_text import parse_spatial_text

_PADDING = {
    "input_ids": None,  # the tokenizer's
    "attention_mask": 0,
    "token_type_ids": 0,
    "mm_token_type_ids": 0,
    "special_tokens_mask": 1,
    "offset_mapping": (0, 0),
}
_HANDLED = ("truncation", "max_length", "padding", "padding_side", "pad_to_multiple_of", "return_tensors")
_NEEDED = ("return_offsets_mapping", "return_special_tokens_mask")


@dataclass(frozen=True)
class Truncation:
    """Settings of truncation and padding.

    Attributes:
        limit: largest number of tokens; padding to a multiple may exceed it.
        side: side where text is dropped, `"right"` or `"left"`.
        padding: `False`, `True` or `"longest"`, or `"max_length"`.
        padding_side: side of the padding, `"right"` or `"left"`.
        pad_to_multiple_of: number that the padded length is a multiple of, or `None`.
        wanted: set of the tokenizer's further outputs that the caller asked for.
    """

    limit: int
    side: str
    padding: bool | str
    padding_side: str
    pad_to_multiple_of: int | None
    wanted: frozenset[str]

    @classmethod
    def of(cls, options: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Truncation | None:
        """Return the settings in the options of a call, or `None` where nothing is truncated.

        Args:
            options: mapping of the tokenizer's options.
            tokenizer: tokenizer that has the defaults.

        Raises:
            ValueError: `max_length` is below 1.
        """
        strategy, limit = options.get("truncation"), options.get("max_length")
        limit = tokenizer.model_max_length if limit is None else limit
        if strategy in (None, False, "do_not_truncate") or limit >= 10**9:  # Transformers' mark for no limit
            return None
        if limit < 1:
            raise ValueError(f"max_length must be at least 1, got {limit}.")
        padding = options.get("padding") or False
        padding = False if padding == "do_not_pad" else getattr(padding, "value", padding)
        return cls(
            limit=int(limit),
            side=tokenizer.truncation_side,
            padding=padding,
            padding_side=options.get("padding_side") or tokenizer.padding_side,
            pad_to_multiple_of=options.get("pad_to_multiple_of"),
            wanted=frozenset(name for name in _NEEDED if options.get(name)),
        )

    @staticmethod
    def untruncated(kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a call that truncates and pads nothing, and returns what `apply` needs."""
        handled = (*_HANDLED, *_NEEDED, "common_kwargs")  # whose one option is `return_tensors`
        flat = {name: value for name, value in kwargs.items() if name not in handled}
        nested = {name: value for name, value in kwargs.get("text_kwargs", {}).items() if name not in _HANDLED}
        return flat | {"text_kwargs": nested | dict.fromkeys(_NEEDED, True)}

    def apply(
        self,
        data: MutableMapping[str, Any],
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        kept_ids: Iterable[int],
    ) -> None:
        """Truncate and pad the tokens of texts in place.

        Args:
            data: mapping of the tokenizer's outputs, as lists.
            texts: sequence of the tokenized texts.
            tokenizer: tokenizer with the padding token.
            kept_ids: iterable of token ids that are never dropped.

        Raises:
            ValueError: the tokens to keep of a text are more than the limit; the message names the text and both
                counts.
        """
        kept_ids = frozenset(kept_ids)
        names = [name for name in _PADDING if name in data]
        for row, text in enumerate(texts):
            ids = data["input_ids"][row]
            if len(ids) <= self.limit:
                continue
            is_kept = [
                token in kept_ids or bool(added)
                for token, added in zip(ids, data["special_tokens_mask"][row], strict=True)
            ]
            if (needed := sum(is_kept)) > self.limit:
                raise ValueError(
                    f"Text {row} has {needed} placeholders and special tokens, which are never cut, and max_length is "
                    f"{self.limit}."
                )
            boxes = [found.span for found in parse_spatial_text(text).objects]
            dropped = _choose(data["offset_mapping"][row], is_kept, len(ids) - self.limit, self.side, boxes)
            for name in names:
                data[name][row] = [value for index, value in enumerate(data[name][row]) if index not in dropped]
        pad_token_id: Any = tokenizer.pad_token_id
        self._pad(data, names, pad_token_id)
        for name, output in zip(_NEEDED, ("offset_mapping", "special_tokens_mask"), strict=True):
            if name not in self.wanted:
                data.pop(output)

    def _pad(self, data: MutableMapping[str, Any], names: Sequence[str], pad_token_id: int) -> None:
        """Pad the tokens in place."""
        if not self.padding:
            return
        length = self.limit if self.padding == "max_length" else max(map(len, data["input_ids"]), default=0)
        if self.pad_to_multiple_of:
            length = -(-length // self.pad_to_multiple_of) * self.pad_to_multiple_of
        for name in names:
            value = pad_token_id if name == "input_ids" else _PADDING[name]
            for row, values in enumerate(data[name]):
                padding = [value] * (length - len(values))
                data[name][row] = [*padding, *values] if self.padding_side == "left" else [*values, *padding]


def _choose(
    offsets: Sequence[tuple[int, int]],
    is_kept: Sequence[bool],
    excess: int,
    side: str,
    boxes: Sequence[tuple[int, int]],
) -> set[int]:
    """Return the indices of the tokens to drop: `excess` from one side, and the rest of a box or character they cut."""
    order = [index for index, kept in enumerate(is_kept) if not kept]
    order = order if side == "left" else order[::-1]
    last = offsets[order[excess - 1]]
    cut = [box for box in boxes if _overlap(box, last)] or [last]
    whole = cut[-1 if side == "left" else 0]
    while excess < len(order) and _overlap(offsets[order[excess]], whole):
        excess += 1
    return set(order[:excess])


def _overlap(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Return whether two spans overlap."""
    return first[0] < second[1] and second[0] < first[1]
