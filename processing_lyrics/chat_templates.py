"""How conversations become prompts, and how their content is kept from being taken for control text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
USER, ASSISTANT = "USER:", "ASSISTANT:"
IMAGE = "<image>"  # in the templates below

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

_TURNS = re.compile(rf"(?<!\w)(?:{USER}|{ASSISTANT})")


def neutralize(text: str, control_tokens: Iterable[str]) -> str:
    """Untrusted text, changed so that it holds no control token and no role: a space goes before their last character.

    `"</s>"` becomes `"</s >"` and `"USER:"` becomes `"USER :"`; any other text is returned as it is.
    """
    tokens = sorted({token for token in control_tokens if token.strip()}, key=len, reverse=True)
    roles = rf"(?<!\w)(?:{USER}|{ASSISTANT})"
    pattern = re.compile("|".join([*map(re.escape, tokens), roles]))
    previous = None
    while previous != text:  # one replacement may bring the ends of another token together
        previous, text = text, pattern.sub(lambda match: f"{match.group()[:-1]} {match.group()[-1]}", text)
    return text


def neutralize_messages(messages: Sequence[Mapping[str, Any]], control_tokens: Iterable[str]) -> list[dict[str, Any]]:
    """A copy of a conversation with the text of every message neutralised; images are shared, not copied."""
    tokens = tuple(control_tokens)

    def clean(content: Any) -> Any:
        if isinstance(content, str):
            return neutralize(content, tokens)
        return [
            {**block, "text": neutralize(block["text"], tokens)} if block.get("type") == "text" else dict(block)
            for block in content or []
        ]

    return [{**message, "content": clean(message.get("content"))} for message in messages]


def instructions_of_messages(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each image of a conversation, in order, the text of the message that holds it."""
    instructions = []
    for message in messages:
        content = message.get("content") or []
        if isinstance(content, str):
            continue
        text = " ".join(block["text"].strip() for block in content if block.get("type") == "text")
        instructions += [text] * sum(block.get("type") in ("image", "image_url") for block in content)
    return instructions


def instructions_of_text(text: str, image_token: str, control_tokens: Iterable[str]) -> list[str]:
    """For each placeholder of a rendered prompt, in order, the text of the turn that holds it.

    Turns are told apart by Vicuna's roles; text before the first role (the system prompt), answers, other turns and
    control tokens are left out.
    """
    marks = list(_TURNS.finditer(text))
    starts = [0, *(mark.end() for mark in marks)]
    ends = [*(mark.start() for mark in marks), len(text)]
    others = re.compile("|".join(map(re.escape, sorted(control_tokens, key=len, reverse=True))) or "(?!)")
    instructions = []
    for start, end in zip(starts, ends, strict=True):
        turn = text[start:end]
        if count := turn.count(image_token):
            instructions += [" ".join(others.sub(" ", turn.replace(image_token, " ")).split())] * count
    return instructions
