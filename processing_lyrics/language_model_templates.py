"""A language model's own chat template, made to take images, and the text that has a meaning in it.

Most templates expect the content of a message as text. Some fail on a list of blocks, some print it, and some drop it
silently. So a few lines of Jinja are put in front of a template, which turn blocks into text before the template sees
them. They are saved with the template. Everything behind them is the language model's, character for character.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from .chat_templates import IMAGE

ChatTemplate = str | dict[str, str]

_MARK = "{#- pictures by Lyrics -#}"  # begins the added lines
_END = "{#- the language model's own template follows #}"  # ends them; what follows keeps its white space
_FLATTEN = """
{%- set lyrics = namespace(messages=[], text='', blocks=[]) -%}
{%- for message in messages -%}
    {%- if message['content'] is defined and message['content'] is iterable and message['content'] is not mapping -%}
        {%- set lyrics.text = '' -%}
        {%- set lyrics.blocks = [] -%}
        {%- if message['content'] is string -%}
            {%- set lyrics.text = message['content'] -%}
            {%- set lyrics.blocks = [{'type': 'text', 'text': message['content']}] -%}
        {%- else -%}
            {%- for block in message['content'] -%}
                {%- if block['type'] == 'image' -%}
                    {%- set lyrics.text = lyrics.text + '<image>\\n' -%}
                    {%- set lyrics.blocks = lyrics.blocks + [{'type': 'text', 'text': '<image>\\n'}] -%}
                {%- elif block['type'] == 'text' -%}
                    {%- set lyrics.text = lyrics.text + block['text'] -%}
                    {%- set lyrics.blocks = lyrics.blocks + [block] -%}
                {%- else -%}
                    {{- raise_exception('Lyrics reads images and text, not ' ~ block['type'] ~ '.') -}}
                {%- endif -%}
            {%- endfor -%}
        {%- endif -%}
        {%- set lyrics.messages = lyrics.messages + [dict(message, content=lyrics.FORM)] -%}
    {%- else -%}
        {%- set lyrics.messages = lyrics.messages + [message] -%}
    {%- endif -%}
{%- endfor -%}
{%- set messages = lyrics.messages -%}
"""
_FORMS = (  # of the content that a template gets, the most common first
    _FLATTEN.strip().replace("lyrics.FORM", "lyrics.text"),
    _FLATTEN.strip().replace("lyrics.FORM", "lyrics.blocks"),
    "",  # its own: the template writes the placeholder itself
)

_BRACKETED = re.compile(
    r"<{1,2}[/|\uff5c]?[^\W\d][^<>|\uff5c\s'\"{}]{0,40}[|\uff5c]?>{1,2}"  # <|user|>, <start_of_turn>, <<SYS>>
    r"|\[/?[A-Z_]{2,40}\]"  # [INST]
)
_THOUGHTS = ("<think>", "</think>")  # some templates write them around every answer
_ROLE = re.compile(r"[^\W\d]\w*:")  # User:
_QUESTION, _ANSWER, _FOLLOW_UP = "LyricsQuestionA", "LyricsAnswerB", "LyricsQuestionC"


@dataclass(frozen=True)
class TurnText:
    """What a template writes around messages, as far as text of unknown origin must not imitate it.

    Attributes:
        marks: set of bracketed names in the template, such as `[INST]`, whether or not they are tokens.
        between: set of those that the template writes between messages.
        roles: tuple of words with a colon between messages, such as `User:`.
        user: word that the template writes between the last token and a message of the user, or `""`.
    """

    marks: frozenset[str]
    between: frozenset[str]
    roles: tuple[str, ...]
    user: str


def is_own_template(template: str) -> bool:
    """Return whether a template is a language model's, with images by `adapt_template`."""
    return template.startswith(_MARK)


def original_template(template: str) -> str:
    """Return a template without the lines that `adapt_template` puts in front of it."""
    return template.partition(_END)[2] if is_own_template(template) else template


def replace_original(template: str, other: str) -> str:
    """Return a template in which another one follows the lines of `adapt_template`, if it has them."""
    before, end, _ = template.partition(_END)
    return before + end + other if is_own_template(template) else other


def adapt_template(template: ChatTemplate, special_tokens: Mapping[str, Any], image_token: str = IMAGE) -> ChatTemplate:
    """Return a language model's chat template that takes blocks of text and images.

    A probe decides in which form the template gets the content of messages. It finds templates that drop or print
    lists.

    Args:
        template: Jinja template, or a dictionary of several by name, of which `default` is probed.
        special_tokens: mapping of variables of the template, the tokenizer's `special_tokens_map`.
        image_token: placeholder of an image.

    Raises:
        ValueError: the template takes images in no form; the message gives the reason for each.
    """
    if isinstance(template, dict):
        if "default" not in template:
            raise ValueError(f"The chat templates are {', '.join(template)}, and none of them is `default`.")
        default = str(adapt_template(template["default"], special_tokens, image_token))
        return {name: replace_original(default, original_template(one)) for name, one in template.items()}
    original, faults = original_template(template), []
    for form in _FORMS:
        adapted = _MARK + form.replace(IMAGE, image_token) + _END + original
        fault = _find_fault(adapted, original, special_tokens, image_token)
        if fault is None:
            return adapted
        faults.append(fault)
    reasons = ", ".join(dict.fromkeys(faults))
    raise ValueError(f"The chat template takes no images: {reasons}. Choose another: vicuna, or a file.")


def render(template: str, messages: Sequence[Any], special_tokens: Mapping[str, Any], **options: Any) -> str:
    """Return a conversation as a template renders it. Its text is trusted.

    Args:
        template: Jinja template.
        messages: sequence of messages.
        special_tokens: mapping of variables of the template, the tokenizer's `special_tokens_map`.
        options: further variables of the template, such as `add_generation_prompt`.
    """
    rendered, _ = render_jinja_template(
        conversations=[list(messages)], chat_template=template, **{**special_tokens, **options}
    )
    return rendered[0]


def _find_fault(adapted: str, original: str, special_tokens: Mapping[str, Any], image_token: str) -> str | None:
    """Return what a template does wrong with images, as a part of a sentence, or `None`."""
    texts = (_QUESTION, _ANSWER, _FOLLOW_UP)
    blocks: list[Any] = [[{"type": "text", "text": text}] for text in texts]
    blocks[0].insert(0, {"type": "image"})
    as_blocks = _conversation(blocks)
    try:
        prompt = render(adapted, as_blocks, special_tokens)
        first = render(adapted, as_blocks[:1], special_tokens, add_generation_prompt=True)
        spoken = render(adapted, _conversation(texts), special_tokens)
    except Exception as error:  # noqa: BLE001  (a template may raise anything)
        return f"it fails with {type(error).__name__} ({error})"
    for text in texts:
        if prompt.count(text) != 1 or spoken.count(text) != 1:
            return "it drops or repeats the text of a message"
    if "'text'" in prompt or '"text"' in prompt:
        return "it prints lists as they are"
    if not prompt.find(image_token) < prompt.find(_QUESTION) < prompt.find(_ANSWER) < prompt.find(_FOLLOW_UP):
        return "it changes the order of messages"
    if prompt.count(image_token) != 1 or first.count(image_token) != 1:
        return f"it writes {prompt.count(image_token)} placeholders for an image"
    try:
        alone = render(original, _conversation(texts), special_tokens)
    except Exception:  # noqa: BLE001  (a template that takes lists alone)
        return None
    is_whole = all(text in alone for text in texts)  # not where a template drops what is no list
    return None if spoken == alone or not is_whole else "it writes text otherwise than without images"


def _conversation(contents: Sequence[Any]) -> list[dict[str, Any]]:
    """Return messages of the user and the assistant in turn."""
    return [{"role": ("user", "assistant")[place % 2], "content": one} for place, one in enumerate(contents)]


def turn_text(template: str, special_tokens: Mapping[str, Any], control_tokens: Sequence[str]) -> TurnText:
    """Return what a template writes around messages.

    Args:
        template: Jinja template that takes text.
        special_tokens: mapping of variables of the template, the tokenizer's `special_tokens_map`.
        control_tokens: sequence of the tokenizer's special tokens.
    """
    plain = tuple((name, value) for name, value in special_tokens.items() if isinstance(value, str))
    return _turn_text(template, plain, tuple(control_tokens))


@lru_cache(maxsize=16)
def _turn_text(template: str, special_tokens: tuple[tuple[str, str], ...], control_tokens: tuple[str, ...]) -> TurnText:
    contents = (_QUESTION, _ANSWER, _FOLLOW_UP)
    marks = frozenset(_BRACKETED.findall(original_template(template)))
    try:
        prompt = render(template, _conversation(contents), dict(special_tokens))
    except Exception:  # noqa: BLE001  (such as a template of tools alone)
        prompt = ""
    parts = re.split("|".join(contents), prompt)
    if len(parts) != 4:
        return TurnText(marks, marks.difference(_THOUGHTS), (), "")
    before, answer, follow_up, after = parts
    between = {mark for part in parts for mark in _BRACKETED.findall(part)}
    tokens = re.compile("|".join(map(re.escape, sorted({*control_tokens, *between}, key=len, reverse=True))) or "(?!)")
    roles = _ROLE.findall(tokens.sub(" ", f"{answer} {follow_up} {after}"))
    opening = before[len(before) - _shared_end(before, follow_up) :]
    user = tokens.split(opening)[-1].strip()
    return TurnText(marks | between, frozenset(between.difference(_THOUGHTS)), tuple(dict.fromkeys(roles)), user)


def _shared_end(first: str, second: str) -> int:
    """Return how many characters at the end of two texts are the same."""
    pairs = enumerate(zip(reversed(first), reversed(second), strict=False))
    return next((count for count, (one, other) in pairs if one != other), min(len(first), len(second)))


def instructions_of_turns(text: str, image_token: str, control_tokens: Sequence[str], user: str) -> list[str]:
    """Return, for each placeholder of a prompt in order, the text of the user's message that holds it.

    Args:
        text: prompt that a language model's own template has rendered.
        image_token: placeholder of an image.
        control_tokens: sequence of the tokens and marks between messages.
        user: word that the template writes before a message of the user, or `""`.
    """
    others = [token for token in control_tokens if token != image_token and token.strip()]
    pattern = re.compile("|".join(map(re.escape, sorted(others, key=len, reverse=True))) or "(?!)")
    instructions = []
    for turn in pattern.split(text):
        words = " ".join(turn.replace(image_token, " ").removeprefix(user).split())
        instructions += [words] * turn.count(image_token)
    return instructions


def end_of_turn(template: str, special_tokens: Mapping[str, Any], control_tokens: Sequence[str]) -> str | None:
    """Return the special token that a template writes behind an answer, or `None`.

    Args:
        template: Jinja template that takes text.
        special_tokens: mapping of variables of the template, the tokenizer's `special_tokens_map`.
        control_tokens: sequence of the tokenizer's special tokens.
    """
    prompt = render(template, _conversation((_QUESTION, _ANSWER)), special_tokens)
    behind = prompt.partition(_ANSWER)[2].lstrip()
    return next((one for one in sorted(control_tokens, key=len, reverse=True) if behind.startswith(one)), None)
