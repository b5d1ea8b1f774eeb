"""Reasoning that a language model writes before its answer, told from the answer while it is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReasoningMarks:
    """How a family of language models marks its reasoning.

    Attributes:
        begin: text before it.
        end: text between it and the answer.
        markup: pattern of what else is no part of it.
    """

    begin: str
    end: str
    markup: str = r"(?!)"  # nothing


_FAMILIES = (
    ReasoningMarks("<think>", "</think>"),  # DeepSeek, Qwen 3, SmolLM3, Nemotron, ...
    ReasoningMarks("<|channel>thought", "<channel|>"),  # Gemma 4
    ReasoningMarks(  # gpt-oss, in channels that have names
        "<|channel|>",
        "<|channel|>final<|message|>",
        r"(assistant)?(<\|channel\|>|^)(analysis|commentary)[^<]*<\|message\|>|assistant$",
    ),
)


class ReasoningReader:
    """Recognizes the reasoning of one language model.

    Args:
        processor: `LyricsProcessor` whose chat template shows the marks; many models have none.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        template: Any = processor.chat_template
        text = "".join(template.values()) if isinstance(template, dict) else template or ""
        self.marks = next((one for one in _FAMILIES if one.end in text), None)
        added = processor.tokenizer.added_tokens_decoder.items()
        shown = "" if self.marks is None else self.marks.begin + self.marks.end
        self._hidden = {index for index, token in added if token.special and token.content not in shown}

    def decoder(self) -> Callable[[Sequence[int]], str]:
        """Return the function from token ids to text without special tokens, other than those of the marks."""
        if self.marks is None:
            return lambda token_ids: self._processor.decode(token_ids, skip_special_tokens=True)
        return lambda token_ids: self._processor.decode([one for one in token_ids if one not in self._hidden])

    def splitter(self, prompt_ids: Sequence[int]) -> ReasoningSplitter | None:
        """Return what splits the answer to a prompt; `None` for a model without reasoning.

        Args:
            prompt_ids: sequence of the tokens of the prompt, whose end may have begun the reasoning already.
        """
        if self.marks is None:
            return None
        end = [one for one in prompt_ids[-16:] if one != self._processor.image_token_id]
        return ReasoningSplitter(self.marks, self._processor.decode(end).rstrip().endswith(self.marks.begin))

    def answer(self, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> str:
        """Return the text of a whole answer without its reasoning."""
        splitter, text = self.splitter(prompt_ids), self.decoder()(token_ids)
        return text if splitter is None else splitter.split(text, is_last=True).strip()


class ReasoningSplitter:
    """Holds the reasoning back from the text of an answer.

    Args:
        marks: `ReasoningMarks`.
        begun: whether the prompt has begun the reasoning.

    Attributes:
        reasoning: text of the reasoning, once it ended, or was cut.
        waits: whether the answer has not begun.
    """

    def __init__(self, marks: ReasoningMarks, begun: bool) -> None:
        self.reasoning = ""
        self.waits = True
        self._marks = marks
        self._begun = begun
        self._held = ""

    def split(self, new: str, is_last: bool) -> str:
        """Take new text, and return what of it belongs to the answer.

        Args:
            new: text.
            is_last: whether none follows.
        """
        if not self.waits:
            return new
        self._held += new
        text, begin, end = self._held.lstrip(), self._marks.begin, self._marks.end
        self._begun = self._begun or text.startswith((begin, end))
        if self._begun:
            before, mark, answer = text.partition(end)
            self.waits = not (mark or is_last)
            if not self.waits:
                self.reasoning = re.sub(self._marks.markup, "\n", before.removeprefix(begin)).strip()
            return answer
        self.waits = not is_last and (begin.startswith(text) or end.startswith(text))
        return "" if self.waits else self._held
