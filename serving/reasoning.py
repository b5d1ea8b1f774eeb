"""Reasoning that a language model writes before its answer, told from the answer while it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..processing_lyrics import LyricsProcessor


@dataclass(frozen=True)
class ReasoningMarks:
    """How a family of language models marks its reasoning.

    Attributes:
        begin: text before it.
        end: text between it and the answer.
        tail: text at the end of the reasoning that belongs to the marks.
    """

    begin: str
    end: str
    tail: str = ""


_FAMILIES = (
    ReasoningMarks("<think>", "</think>"),  # DeepSeek, Qwen 3, SmolLM3, Nemotron, ...
    ReasoningMarks("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "assistant"),  # gpt-oss
)


class ReasoningReader:
    """Recognizes the reasoning of one language model.

    Args:
        processor: processor whose chat template shows the marks; many models have none.
    """

    def __init__(self, processor: LyricsProcessor) -> None:
        self._processor = processor
        template: Any = processor.chat_template
        text = "".join(template.values()) if isinstance(template, dict) else template or ""
        self.marks = next((one for one in _FAMILIES if one.end in text), None)
        added = processor.tokenizer.added_tokens_decoder.items()
        shown = "" if self.marks is None else self.marks.begin + self.marks.end
        self._hidden = {index for index, token in added if token.special and token.content not in shown}

    def decoder(self) -> Callable[[list[int]], str]:
        """Return the function from token ids to text without special tokens, other than those of the marks."""
        if self.marks is None:
            return lambda token_ids: self._processor.decode(token_ids, skip_special_tokens=True)
        return lambda token_ids: self._processor.decode([one for one in token_ids if one not in self._hidden])

    def splitter(self, prompt_ids: list[int]) -> ReasoningSplitter | None:
        """Return what splits the answer to a prompt; `None` for a model without reasoning.

        Args:
            prompt_ids: list of the tokens of the prompt, whose end may have begun the reasoning already.
        """
        if self.marks is None:
            return None
        end = [one for one in prompt_ids[-16:] if one != self._processor.image_token_id]
        return ReasoningSplitter(self.marks, self._processor.decode(end).rstrip().endswith(self.marks.begin))


class ReasoningSplitter:
    """Holds the reasoning back from the text of an answer.

    Where it never ends, nobody knows where an answer would begin: everything counts as the answer.

    Args:
        marks: `ReasoningMarks`.
        begun: whether the prompt has begun the reasoning.

    Attributes:
        reasoning: text of the reasoning, once it ended.
    """

    def __init__(self, marks: ReasoningMarks, begun: bool) -> None:
        self.reasoning = ""
        self._marks = marks
        self._begun = begun
        self._held: str | None = ""

    def split(self, new: str, is_last: bool) -> str:
        """Take new text, and return what of it belongs to the answer.

        Args:
            new: text.
            is_last: whether none follows.
        """
        if self._held is None:
            return new
        self._held += new
        text, begin, end = self._held.lstrip(), self._marks.begin, self._marks.end
        self._begun = self._begun or text.startswith((begin, end))
        before, mark, after = text.partition(end)
        if self._begun and mark:
            self.reasoning = before.removeprefix(begin).removesuffix(self._marks.tail).strip()
        elif is_last or not (self._begun or begin.startswith(text) or end.startswith(text)):
            after = self._held
        else:
            return ""
        self._held = None
        return after
