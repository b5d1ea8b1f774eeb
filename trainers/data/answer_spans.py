"""Answers in rendered conversations: where they begin and end, under any chat template."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2.exceptions import TemplateError
from transformers.utils import logging

from ...datasets_lyrics.conversations import Message
from ...processing_lyrics import LyricsProcessor
from ...processing_lyrics.chat_templates import instructions_of_messages, neutralize_messages
from ...processing_lyrics.language_model_templates import is_own_template, original_template, replace_original

logger = logging.get_logger(__name__)

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = ("What is it?", "A red cup, I think.", "And there?", "Nothing.")
Span = tuple[int, int]


class AnswerError(ValueError):
    """The answers of a conversation cannot be told from its other text."""


@dataclass(frozen=True)
class RenderedAnswers:
    """A rendered conversation.

    Attributes:
        prompt: text.
        spans: list of the begin and the end of each answer in the text, with the token that ends the turn.
    """

    prompt: str
    spans: list[Span]


class AnswerFinder:
    """Finds the answers of conversations in what a chat template makes of them.

    There are three ways, and the first that applies is taken: the template marks answers with `{% generation %}`; TRL
    has a training template for it, which does; or a conversation is rendered twice, with its answers and with a unique
    mark in place of each. In the last case, the text around the marks must be that around the answers.

    Args:
        processor: processor with a chat template.

    Raises:
        ValueError: no way is exact; the message gives the reason.
    """

    def __init__(self, processor: LyricsProcessor) -> None:
        self.processor = processor
        added = processor.tokenizer.added_tokens_decoder
        self._special = {index: token.content for index, token in added.items() if token.special}
        template = default_template(processor)
        self.template = template if _GENERATION.search(template) else training_template(processor)
        if self.template is None:
            self._probe()
        self._compare_openings()

    @property
    def way(self) -> str:
        """How answers are found: `"generation tags"`, `"training template"` or `"marks"`."""
        if self.template is None:
            return "marks"
        return "generation tags" if self.template == default_template(self.processor) else "training template"

    @property
    def ends_exactly(self) -> bool:
        """Whether nothing follows the token that ends an answer, as in Lyrics' own templates."""
        return self.template is None or not is_own_template(self.template)

    def last_special(self, ids: Sequence[int]) -> int | None:
        """Return the index of the last special token among ids, or `None`."""
        return next((place for place in reversed(range(len(ids))) if ids[place] in self._special), None)

    def render(self, messages: Sequence[Message]) -> str:
        """Return a conversation as text, as it is learned."""
        return self.processor.apply_chat_template(list(messages), chat_template=self.template)

    def check(self, messages: Sequence[Message]) -> None:
        """Raise a `ValueError` where a language model's own template refuses a conversation or changes an answer.

        Lyrics' own templates take whatever a row may hold.
        """
        if self.ends_exactly and self.template is not None:
            return
        try:
            if self.template is None:
                self.locate(messages)
            else:
                self._require_answers(messages, self.render(messages))
        except AnswerError as error:
            raise AnswerError(f"The chat template does not take this conversation: {error}.") from error

    def _require_answers(self, messages: Sequence[Message], prompt: str) -> None:
        """Raise an `AnswerError` where a prompt lacks a part of an answer. White space does not count."""
        rest = "".join(prompt.split())
        for number, message in enumerate(neutralize_messages(messages, self.processor.control_text(self.template))):
            if message["role"] != "assistant":
                continue
            if answer := "".join(_text_of(message["content"]).split()):
                _, found, rest = rest.partition(answer)
                if not found:
                    raise AnswerError(f"it changes the answer in message {number}, such as what stands before <think>")

    def encode(self, conversations: Sequence[list[Message]], options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model inputs of B conversations, and `assistant_masks` (B, L), 1 at the answers.

        Args:
            conversations: sequence of lists of messages with their images.
            options: mapping of the processor's options.

        Raises:
            AnswerError: the answers of a conversation cannot be found exactly.
        """
        if self.template is not None:
            encoded: Any = self.processor.apply_chat_template(
                list(conversations),
                chat_template=self.template,
                tokenize=True,
                return_dict=True,
                return_tensors="np",  # offsets of arrays are faster to iterate over than those of tensors
                return_assistant_tokens_mask=True,
                processor_kwargs=dict(options),
            )
            return dict(encoded)
        rendered = [self.locate(messages) for messages in conversations]
        images = [
            [block["image"] for message in messages for block in message["content"] if block["type"] == "image"]
            for messages in conversations
        ]
        encoded = self.processor(
            images=images if any(images) else None,
            text=[one.prompt for one in rendered],
            mqformer_instructions=[text for messages in conversations for text in instructions_of_messages(messages)],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_text_replacement_offsets=True,
            return_tensors="np",
            **options,
        )
        spans: Any = [one.spans for one in rendered]
        encoded = self.processor._adjust_assistant_masks_indices(encoded, spans)  # pyright: ignore[reportPrivateUsage]
        return {name: np.asarray(values) for name, values in encoded.items()}

    def locate(self, messages: Sequence[Message]) -> RenderedAnswers:
        """Render a conversation, and find its answers by marks.

        Args:
            messages: messages with blocks of text and images.

        Raises:
            AnswerError: the text around the answers depends on them, or no special token ends an answer.
        """
        cleaned = neutralize_messages(messages, self.processor.control_text())
        places = [place for place, message in enumerate(cleaned) if message["role"] == "assistant"]
        prompt = self._render(cleaned)
        if not places:
            return RenderedAnswers(prompt, [])
        salt = next(number for number in itertools.count() if f"LyricsMark{number}Of" not in prompt)
        marks = [f"LyricsMark{salt}Of{number}Of{len(places)}" for number in range(len(places))]
        marked = list(cleaned)
        for place, mark in zip(places, marks, strict=True):
            marked[place] = {**cleaned[place], "content": mark}
        pieces = re.split(f"({'|'.join(marks)})", self._render(marked))
        if pieces[1::2] != marks:
            raise AnswerError("it does not write every answer exactly once, in order")
        answers = [_text_of(cleaned[place]["content"]) for place in places]
        for change in (str, str.strip):  # some templates trim messages
            spans = _place(prompt, pieces[::2], [change(answer) for answer in answers])
            if spans is not None:
                return RenderedAnswers(
                    prompt,
                    [
                        (self._begin(cleaned[:place], prompt, start), self._end(prompt, end))
                        for place, (start, end) in zip(places, spans, strict=True)
                    ],
                )
        raise AnswerError("what it writes around an answer depends on the answer, such as where it drops <think>")

    def _render(self, messages: Sequence[Message], **options: Any) -> str:
        return self.processor.apply_chat_template(list(messages), **options)

    def _begin(self, before: Sequence[Message], prompt: str, start: int) -> int:
        """Return where the model begins to write an answer: behind the prompt of the question before it."""
        opening = self._render(before, add_generation_prompt=True) if before else ""
        if len(opening) <= start and prompt.startswith(opening):
            return len(opening) or start
        # The template drops something of earlier turns: only the header of the answer is looked for.
        without = self._render(before)
        header = opening.removeprefix(without) if opening.startswith(without) else ""
        place = prompt.rfind(header, 0, start) if header else -1
        return start if place < 0 else place + len(header)

    def _end(self, prompt: str, end: int) -> int:
        """Return the end of the special token behind an answer."""
        begin = end + len(prompt[end:]) - len(prompt[end:].lstrip())
        for token in sorted(self._special.values(), key=len, reverse=True):
            if token != self.processor.image_token and prompt.startswith(token, begin):
                return begin + len(token)
        raise AnswerError("it writes no special token behind an answer, so that the model would not learn to stop")

    def _probe(self) -> None:
        """Raise a `ValueError` where the answers of an ordinary conversation cannot be found."""
        roles = ("user", "assistant", "user", "assistant")
        messages = [{"role": role, "content": text} for role, text in zip(roles, _PROBE, strict=True)]
        try:
            self.locate(messages)
        except ValueError as error:
            raise ValueError(
                f"The chat template does not show which text is an answer: {error}. Put {{% generation %}} and "
                "{% endgeneration %} around the answers in the template, or compose the model with --chat-template "
                "vicuna."
            ) from error

    def _compare_openings(self) -> None:
        """Warn where a prompt ends with words that the answers do not begin with, such as `<think>`."""
        messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), _PROBE, strict=False)]
        try:
            learned, prompt = self.render(messages), self._render(messages[:1], add_generation_prompt=True)
        except ValueError:  # a template may refuse a conversation as short as this
            return
        if learned.startswith(prompt):
            return
        same = next(place for place, one in enumerate(prompt) if not learned.startswith(one, place))
        logger.warning_once(
            f"The chat template ends a prompt with {prompt[same:]!r}, and does not write it before the answers of the "
            "data: a tuned model would go on from what it never learned. Begin the answers of the data with it."
        )


def default_template(processor: LyricsProcessor) -> str:
    """Return the chat template of a processor; the one named `default`, where it has several.

    Raises:
        ValueError: there is no such template.
    """
    template: Any = processor.chat_template
    if isinstance(template, Mapping):
        if "default" not in template:
            raise ValueError(f"The processor's chat templates are {', '.join(template)}: none is named 'default'.")
        template = template["default"]
    return str(template)


def training_template(processor: LyricsProcessor) -> str | None:
    """Return TRL's training template for the chat template of a processor, or `None` where TRL has none.

    TRL knows a template by its exact text. The training template is read from the installed TRL.
    """
    template = default_template(processor)
    try:
        from trl.chat_template_utils import get_training_chat_template
    except ImportError:
        return None
    tokenizer = copy.copy(processor.tokenizer)
    tokenizer.chat_template = original_template(template)
    try:
        found = get_training_chat_template(tokenizer)
    except (TemplateError, ValueError):  # TRL does not know it
        return None
    return None if found is None else replace_original(template, found)


def _place(prompt: str, around: Sequence[str], answers: Sequence[str]) -> list[Span] | None:
    """Return the spans of answers in a prompt that consists of them and the text around them, or `None`."""
    spans, text = [], around[0]
    for answer, after in zip(answers, around[1:], strict=True):
        spans.append((len(text), len(text) + len(answer)))
        text += answer + after
    return spans if text == prompt else None


def _text_of(content: Any) -> str:
    """Return the text of a message."""
    return content if isinstance(content, str) else "".join(block["text"] for block in content)
