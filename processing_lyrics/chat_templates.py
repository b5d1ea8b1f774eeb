"""Chat templates, and the protection of prompts from message text that imitates control tokens."""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from traceback import walk_tb
from typing import Any

from jinja2.exceptions import TemplateError

from .spatial_text import as_text

SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
USER, ASSISTANT = "USER:", "ASSISTANT:"
IMAGE = "<image>"  # placeholder in the templates below

_CONTENT = """
{%- macro write(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for block in content -%}
            {%- if block['type'] == 'image' -%}{{- '<image>\\n' -}}
            {%- elif block['type'] == 'text' -%}{{- block['text'] -}}
            {%- else -%}{{- raise_exception('Lyrics reads images and text, not ' ~ block['type'] ~ '.') -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
"""

VICUNA_TEMPLATE = (
    _CONTENT.strip()
    + """
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}
    {{- write(messages[0]['content']) -}}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {{- '"""
    + SYSTEM_PROMPT.replace("'", "\\'")
    + """' -}}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if message['role'] == 'user' -%}
        {{- ('' if loop.previtem is defined and loop.previtem['role'] == 'assistant' else ' ') + '"""
    + USER
    + """ ' + write(message['content']) -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- ' """
    + ASSISTANT
    + """' -}}
        {%- generation -%}{{- ' ' + write(message['content']) + eos_token -}}{%- endgeneration -%}
    {%- else -%}
        {{- raise_exception('Lyrics knows the roles system (first), user and assistant, not ' ~ message['role'] ~ '.') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ' """
    + ASSISTANT
    + """' -}}{%- endif -%}
"""
).strip()

PUBLISHED_TEMPLATE = """
{%- if messages[0]['role'] != 'user' or messages|length > 2 or (messages|length == 2 and messages[1]['role'] != 'assistant') -%}
    {{- raise_exception('The published checkpoint was tuned on one question and one answer: it takes a single user message, and at most one answer after it.') -}}
{%- endif -%}
{%- if messages[0]['content'] is string -%}
    {{- bos_token + messages[0]['content'] -}}
{%- else -%}
    {%- for block in messages[0]['content'] if block['type'] == 'image' -%}{{- '<image>' -}}{%- endfor -%}
    {{- bos_token -}}
    {%- for block in messages[0]['content'] if block['type'] == 'text' -%}{{- block['text'] -}}{%- endfor -%}
{%- endif -%}
{%- if messages|length == 2 -%}
    {%- generation -%}
        {{- ' ' -}}
        {%- if messages[1]['content'] is string -%}{{- messages[1]['content'] -}}
        {%- else -%}{%- for block in messages[1]['content'] -%}{{- block['text'] -}}{%- endfor -%}{%- endif -%}
        {{- ' ' + eos_token -}}
    {%- endgeneration -%}
{%- endif -%}
""".strip()

ROLES = (USER, ASSISTANT)

_WORD = re.compile(r"\w")
_TURNS = re.compile(rf"(?<!\w)(?:{'|'.join(ROLES)})")
_SPACES = " \u2009\u200a\u2002\u2003"  # the first one that no control token contains splits imitations


@lru_cache(maxsize=16)
def _imitations(tokens: frozenset[str]) -> tuple[re.Pattern[str], dict[str, list[int]], str]:
    """Return a pattern of control tokens, the positions where each is split, and the character that splits it.

    A token is split before its last character. Where a shorter token is its beginning, it is also split before the last
    character of that one.
    """
    ordered = sorted(tokens, key=len, reverse=True)
    pattern = re.compile(f"(?=({'|'.join(map(re.escape, ordered))}))" if tokens else "(?!)")
    cuts = {token: [end - 1 for end in range(2, len(token) + 1) if token[:end] in tokens] for token in tokens}
    return pattern, cuts, next((space for space in _SPACES if not any(space in token for token in tokens)), "\ufffd")


def neutralize(text: str, control_tokens: Iterable[str]) -> str:
    """Return untrusted text without control tokens and roles: a space is put before their last character.

    `"</s>"` becomes `"</s >"` and `"USER:"` becomes `"USER :"`; other text is returned as by `as_text`. Tokens of one
    character, or of white space, cannot be told from text and are left alone. The time is linear in the text.

    Args:
        text: untrusted text.
        control_tokens: iterable of the tokens to remove.
    """
    return neutralize_parts([text], control_tokens)[0]


@lru_cache(maxsize=16)
def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern of words."""
    return re.compile("|".join(map(re.escape, words)) or "(?!)")


def neutralize_parts(parts: Sequence[str], control_tokens: Iterable[str], roles: tuple[str, ...] = ROLES) -> list[str]:
    """Neutralize texts that a template may join without a separator, so that no joint makes a token.

    Args:
        parts: sequence of texts.
        control_tokens: iterable of the tokens to remove.
        roles: tuple of the words that begin a turn; at the beginning of a word, they are split as well.
    """
    parts = [as_text(part) for part in parts]
    text, bounds = "".join(parts), [0, *accumulate(map(len, parts))]
    pattern, cuts, space = _imitations(frozenset(token for token in control_tokens if len(token) > 1 and token.strip()))
    at = {match.start() + cut for match in pattern.finditer(text) for cut in cuts[match[1]]}
    begins = at.union(bounds)
    at |= {
        match.end() - 1
        for match in _any_of(roles).finditer(text)
        if match.start() in begins or not _WORD.match(text, match.start() - 1)
    }
    if not at:
        return parts
    ordered = sorted(at)
    within = [ordered[bisect_left(ordered, begin) : bisect_left(ordered, end)] for begin, end in pairwise(bounds)]
    return [
        space.join(text[start:stop] for start, stop in pairwise([begin, *inside, end]))
        for (begin, end), inside in zip(pairwise(bounds), within, strict=True)
    ]


def message_as_dict(message: Any) -> Any:
    """Return a message object, or a block of one, as a dictionary; other values are returned unchanged.

    Transformers accepts dataclasses and pydantic models, such as the messages of OpenAI's client. Images are shared,
    not copied.
    """
    if dataclasses.is_dataclass(message) and not isinstance(message, type):
        message = {field.name: getattr(message, field.name) for field in dataclasses.fields(message)}
    elif callable(dump := getattr(message, "model_dump", None)):
        message = dump()
    if isinstance(message, Mapping) and isinstance(blocks := message.get("content"), list | tuple):
        message = {**message, "content": [message_as_dict(block) for block in blocks]}
    return message


@dataclasses.dataclass(frozen=True)
class ControlText:
    """Text that has a meaning in a prompt, so that text of unknown origin must not hold it.

    Attributes:
        tokens: tuple of tokens and marks that no message may hold.
        tokens_of_answers: tuple of further ones that only the assistant's messages may hold, such as `<think>`. Decoded
            answers contain them.
        roles: tuple of words that begin a turn, such as `USER:`.
    """

    tokens: tuple[str, ...]
    tokens_of_answers: tuple[str, ...] = ()
    roles: tuple[str, ...] = ROLES

    def tokens_for(self, role: Any) -> tuple[str, ...]:
        """Return what a message of a role must not hold."""
        return self.tokens if role == "assistant" else (*self.tokens, *self.tokens_of_answers)


def neutralize_messages(messages: Sequence[Any], control: ControlText | Iterable[str]) -> list[dict[str, Any]]:
    """Return a copy of a conversation with the text of every message neutralized; images are shared, not copied.

    Args:
        messages: sequence of dictionaries, dataclasses or pydantic models, as are their blocks.
        control: text to remove, or an iterable of tokens.

    Raises:
        ValueError: the conversation is empty or malformed; the message names the message's index.
    """
    control = control if isinstance(control, ControlText) else ControlText(tuple(control))
    given: Any = messages
    if not isinstance(given, Sequence):
        raise ValueError(f"A conversation must be a list of messages, got {_kind(given)}.")
    if not messages:
        raise ValueError("The conversation is empty.")
    cleaned = []
    for number, message in enumerate(map(message_as_dict, messages)):
        if not isinstance(message, Mapping):
            raise ValueError(f"Message {number} must be a dictionary with a role and content, got {_kind(message)}.")
        tokens = control.tokens_for(message.get("role"))
        others = {name: value for name, value in message.items() if name != "content"}
        content = _clean_content(number, message.get("content"), tokens, control.roles)
        cleaned.append({**neutralize_value(others, tokens, control.roles), "content": content})
    return cleaned


def neutralize_value(value: Any, tokens: tuple[str, ...], roles: tuple[str, ...] = ROLES) -> Any:
    """Return a copy of strings in lists and dictionaries, such as tool calls, with each of them neutralized.

    Args:
        value: string, list, dictionary, or anything else, which is returned as it is.
        tokens, roles: tokens and roles to remove.
    """
    if isinstance(value, str):
        return neutralize_parts([value], tokens, roles)[0]
    if isinstance(value, Mapping):
        return {
            neutralize_value(key, tokens, roles): neutralize_value(one, tokens, roles) for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [neutralize_value(one, tokens, roles) for one in value]
    return value


def _clean_content(number: int, content: Any, tokens: tuple[str, ...], roles: tuple[str, ...]) -> Any:
    """Return the content of a message with neutralized text."""
    if isinstance(content, str):
        return neutralize_parts([content], tokens, roles)[0]
    if content is None:
        return []
    if not isinstance(content, Sequence) or not all(isinstance(block, Mapping) for block in content):
        raise ValueError(f"Message {number}: content must be text or a list of blocks, got {_kind(content)}.")
    for block in content:
        if not isinstance(block.get("type"), str):
            raise ValueError(
                f"Message {number}: a block needs a type, such as 'image' or 'text', got one with the keys "
                f"{', '.join(map(repr, block)) or 'none'}."
            )
    texts = [block.get("text") for block in content if block.get("type") == "text"]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"Message {number}: a block of type 'text' needs text, got {_kind(text)}.")
    cleaned = iter(neutralize_parts(texts, tokens, roles))
    return [{**block, "text": next(cleaned)} if block.get("type") == "text" else dict(block) for block in content]


def _kind(value: Any) -> str:
    """Return the name of a value's type."""
    return type(value).__name__


def instructions_of_messages(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return, for each image of a conversation in order, the text of the message that contains it."""
    instructions = []
    for message in messages:
        content = message.get("content") or []
        if isinstance(content, str):
            continue
        text = " ".join(block["text"].strip() for block in content if block.get("type") == "text")
        instructions += [text] * sum(block.get("type") in ("image", "image_url") for block in content)
    return instructions


def instructions_of_text(text: str, image_token: str, control_tokens: Iterable[str]) -> list[str]:
    """Return, for each placeholder of a rendered prompt in order, the text of the turn that contains it.

    Turns are separated by Vicuna's roles. The system prompt, answers, other turns and control tokens are left out.
    """
    marks = list(_TURNS.finditer(text))
    starts = [0, *(mark.end() for mark in marks)]
    ends = [*(mark.start() for mark in marks), len(text)]
    others = re.compile("|".join(map(re.escape, sorted(control_tokens, key=len, reverse=True))) or "(?!)")
    instructions = []
    for start, end in zip(starts, ends, strict=True):
        if count := text.count(image_token, start, end):
            turn = text[start:end].replace(image_token, " ")
            instructions += [" ".join(others.sub(" ", turn).split())] * count
    return instructions


class ChatTemplateError(ValueError, TemplateError):
    """A chat template refuses a conversation, such as one with a role that it does not know."""


def is_raised_in_template(error: Exception) -> bool:
    """Return whether an exception comes from a Jinja template, whose frames carry its file name."""
    return any(frame.f_code.co_filename == "<template>" for frame, _ in walk_tb(error.__traceback__))
