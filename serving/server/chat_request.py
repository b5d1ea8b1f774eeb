"""Requests of `/v1/chat/completions`: which fields are read, which are refused, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..generation_options import LARGEST_SEED
from .errors import RequestError, wrong_value
from .fields import check_model, check_names, read_flag, read_number, read_strings, shorten
from .images import ImageSource, read_image_source
from .limits import MAX_MESSAGES, MAX_STOP_CHARACTERS, MAX_STOP_STRINGS, ServerLimits

DEFAULT_TOKENS = 256
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_KNOWN = (
    *("model", "messages", "stream", "stream_options", "stop", "temperature", "top_p", "top_k", "seed"),
    *("max_tokens", "max_completion_tokens"),
    *("user", "metadata", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"),  # they change no answer
)
_NEUTRAL: dict[str, list[Any]] = {
    "n": [1],
    "logprobs": [False],
    "top_logprobs": [0],
    "tools": [[]],
    "tool_choice": ["none", "auto"],
    "functions": [[]],
    "function_call": ["none", "auto"],
    "response_format": [{"type": "text"}],
    "frequency_penalty": [0, 0.0],
    "presence_penalty": [0, 0.0],
    "logit_bias": [{}],
    "modalities": [["text"]],
    "service_tier": ["auto", "default"],
    "store": [False],
    **{
        name: []
        for name in ("audio", "moderation", "prediction", "reasoning_effort", "verbosity", "web_search_options")
    },
}


@dataclass(frozen=True)
class ChatRequest:
    """A conversation to be answered.

    Attributes:
        messages: list of messages with blocks; an image block holds its `ImageSource` as `image`.
        options: fields of `GenerationOptions`.
        stream: whether the answer is sent while it is written.
        include_usage: whether a stream ends with the numbers of tokens.
    """

    messages: list[dict[str, Any]]
    options: dict[str, Any]
    stream: bool
    include_usage: bool

    def image_blocks(self) -> list[dict[str, Any]]:
        """Return the blocks that hold images, in order."""
        return [block for message in self.messages for block in message["content"] if block["type"] == "image"]

    def sources(self) -> list[ImageSource]:
        """Return the sources of all images, in order."""
        return [block["image"] for block in self.image_blocks()]


def read_chat_request(body: Mapping[str, Any], model_name: str, limits: ServerLimits) -> ChatRequest:
    """Read and check a request.

    Raises:
        RequestError: naming the field that is wrong, unknown or not supported, or the limit that is exceeded.
    """
    check_names(body, _KNOWN, _NEUTRAL)
    check_model(body, model_name)
    stream = read_flag(body, "stream")
    stream_options = body.get("stream_options")
    if stream_options is not None and not (stream and isinstance(stream_options, dict)):
        raise wrong_value("stream_options", "`stream_options` must be an object, and needs `stream`: true.")
    request = ChatRequest(
        _read_messages(body.get("messages")),
        _read_options(body, limits),
        stream,
        include_usage=read_flag(stream_options or {}, "include_usage"),
    )
    _check_size(request, limits)
    return request


def _read_options(body: Mapping[str, Any], limits: ServerLimits) -> dict[str, Any]:
    """Return the generation options of a request."""
    options: dict[str, Any] = {
        "max_new_tokens": min(DEFAULT_TOKENS, limits.max_tokens),
        "stop": read_strings(body, "stop", MAX_STOP_STRINGS, MAX_STOP_CHARACTERS),
    }
    given: dict[str, Any] = {
        "temperature": read_number(body, "temperature", 0, 2),
        "top_p": read_number(body, "top_p", 0, 1),
        "top_k": read_number(body, "top_k", 1, 2**31, whole=True),
        "seed": read_number(body, "seed", 0, LARGEST_SEED, whole=True),
    }
    for name in ("max_tokens", "max_completion_tokens"):  # the second is the newer name
        if (value := read_number(body, name, 1, limits.max_tokens, whole=True)) is not None:
            given["max_new_tokens"] = value
    if given["top_p"] == 0:
        raise wrong_value("top_p", "`top_p` must be above 0; `temperature`: 0 takes the most probable token.")
    return options | {name: value for name, value in given.items() if value is not None}


def _read_messages(messages: Any) -> list[dict[str, Any]]:
    """Return messages of blocks."""
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise wrong_value("messages", f"`messages` must be a list of messages, got {shorten(messages)}.")
    if len(messages) > MAX_MESSAGES:
        raise wrong_value("messages", f"The conversation has {len(messages)} messages; the limit is {MAX_MESSAGES}.")
    read = [_read_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    for index, message in enumerate(read[1:], start=1):
        if message["role"] == "system":
            raise wrong_value(f"messages[{index}].role", "A message of the system must be the first.")
    if read[-1]["role"] != "user":
        raise wrong_value("messages", f"The last message must be the user's, got one of the {read[-1]['role']}.")
    if not any(block["type"] == "box" or block.get("text", "").strip() for block in read[-1]["content"]):
        raise wrong_value("messages", "The last message asks nothing: it has no text.")
    return read


def _read_message(message: Mapping[str, Any], place: str) -> dict[str, Any]:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise wrong_value(f"{place}.role", f"A role must be one of {', '.join(ROLES)}, got {shorten(role)}.")
    for name in message:
        if name not in ("role", "content", "name", "refusal", "annotations") and message[name] is not None:
            text = f"A message has the field {shorten(name)}, which is not supported."
            raise RequestError(400, text, code="unsupported_parameter", param=f"{place}.{name[:100]}")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise wrong_value(f"{place}.content", f"Content must be text or a list of parts, got {shorten(content)}.")
    parts = [_read_part(part, ROLES[role], f"{place}.content[{index}]") for index, part in enumerate(content)]
    return {"role": ROLES[role], "content": parts}


def _read_part(part: Mapping[str, Any], role: str, place: str) -> dict[str, Any]:
    """Return a part of a message as a block: text, image, or box, which is an extension."""
    kind = part.get("type")
    if kind == "text":
        text = part.get("text")
        if not isinstance(text, str):
            raise wrong_value(f"{place}.text", f"`text` must be a string, got {shorten(text)}.")
        return {"type": "text", "text": text}
    if kind == "image_url":
        if role != "user":
            raise wrong_value(place, f"Only messages of the user may hold images, not those of the {role}.")
        return {"type": "image", "image": read_image_source(part.get("image_url"), f"{place}.image_url")}
    if kind == "box":
        return _read_box(part, place)
    message = f"A part must be of type text, image_url or box, got {shorten(kind)}."
    raise RequestError(400, message, code="unsupported_parameter", param=f"{place}.type")


def _read_box(part: Mapping[str, Any], place: str) -> dict[str, Any]:
    box, label = part.get("box"), part.get("label")
    values = box if isinstance(box, list) else []
    if len(values) != 4 or not all(isinstance(one, int | float) and 0 <= one <= 1 for one in values):
        raise wrong_value(f"{place}.box", f"`box` must be [x1, y1, x2, y2] in [0, 1], got {shorten(box)}.")
    if label is not None and not isinstance(label, str):
        raise wrong_value(f"{place}.label", f"`label` must be a string, got {shorten(label)}.")
    return {"type": "box", "box": values, **({"label": label} if label else {})}


def _check_size(request: ChatRequest, limits: ServerLimits) -> None:
    """Raise a `RequestError` where texts are too long, or images too many."""
    blocks = [block for message in request.messages for block in message["content"]]
    length = sum(len(block.get("text", "")) + len(block.get("label", "")) for block in blocks)
    if length > limits.max_text:
        message = f"The messages have {length:,} characters; the limit is {limits.max_text:,}."
        raise RequestError(400, message, code="text_too_long", param="messages")
    if (count := len(request.sources())) > limits.max_images:
        message = f"The messages have {count} images; the limit is {limits.max_images}."
        raise RequestError(400, message, code="too_many_images", param="messages")
