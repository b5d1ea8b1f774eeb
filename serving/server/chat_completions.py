"""`/v1/chat/completions`: answers whole, or as events while they are written."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ..answer import Answer
from ..answer_stream import AnswerStream
from .chat_request import ChatRequest, read_chat_request
from .disconnection import unless_disconnected
from .errors import describe_failure, overloaded
from .json_response import JSON, to_json
from .request_body import read_json
from .service import Service

_LENGTH, _STOP = "length", "stop"


class ChatCompletions:
    """Endpoint of chats.

    Args:
        service: what the endpoints share.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, request: Request) -> Response:
        """Answer the last message of a conversation."""
        service, started = self._service, time.monotonic()
        asked = read_chat_request(
            await read_json(request, service.limits, service.threads), service.model_name, service.limits
        )  # without a name for the body, its images are gone as soon as they are decoded
        pictures = await unless_disconnected(request, service.images.load(asked.sources()))
        for block, picture in zip(asked.image_blocks(), pictures, strict=True):
            block["image"] = picture
        options = {**asked.options, "timeout": max(0.001, started + service.limits.timeout - time.monotonic())}
        stream = await service.threads.run(service.assistant.stream_messages, asked.messages, **options)
        pieces = self._read(stream, started)
        completion = _Completion(service.model_name)
        if not asked.stream:
            await unless_disconnected(request, _exhaust(pieces))
            return JSON(completion.whole(self._finished(stream)))
        # An error before the first piece still gets a status of its own.
        first = await unless_disconnected(request, anext(pieces, ""))
        events = self._events(first, pieces, stream, completion, asked)
        return _EventResponse(events, stream)

    async def _read(self, stream: AnswerStream, started: float) -> AsyncIterator[str]:
        """Yield the pieces of an answer, which is stopped when nobody asks for the next one."""
        is_first = True
        try:
            async for piece in stream:
                if is_first:
                    self._service.metrics.first_piece_seconds.observe(time.monotonic() - started)
                    is_first = False
                yield piece
        finally:
            stream.cancel()

    async def _events(
        self, first: str, pieces: AsyncIterator[str], stream: AnswerStream, completion: _Completion, asked: ChatRequest
    ) -> AsyncIterator[bytes]:
        """Yield server-sent events: the role, the pieces, the reason for the end, and the usage if it is asked for."""
        usage: dict[str, Any] = {"usage": None} if asked.include_usage else {}
        try:
            yield _event(completion.chunk({"role": "assistant", "content": ""}) | usage)
            if first:
                yield _event(completion.chunk({"content": first}) | usage)
            async for piece in pieces:
                yield _event(completion.chunk({"content": piece}) | usage)
            answer = self._finished(stream)
        except Exception as error:  # noqa: BLE001  (the status is sent already)
            yield _event(describe_failure(error).to_dict())
            return
        if answer.reasoning:
            yield _event(completion.chunk({"reasoning_content": answer.reasoning}) | usage)
        end = completion.chunk({}, finish_reason=_reason(answer)) | usage
        yield _event(end | {"lyrics": describe_answer(answer)})
        if asked.include_usage:
            yield _event(completion.chunk(None) | {"usage": _usage(answer)})
        yield b"data: [DONE]\n\n"

    def _finished(self, stream: AnswerStream) -> Answer:
        """Return a complete answer, and count it."""
        answer, metrics = stream.result(), self._service.metrics
        metrics.answers.add(finish_reason=answer.finish_reason)
        metrics.prompt_tokens.add(answer.prompt_tokens)
        metrics.completion_tokens.add(answer.completion_tokens)
        if answer.finish_reason == "cancelled":
            raise overloaded("The server shuts down.", "shutting_down")
        return answer


class _EventResponse(StreamingResponse):
    """Response of server-sent events. Its answer is stopped when the client leaves."""

    def __init__(self, events: AsyncIterator[bytes], stream: AnswerStream) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second for nginx
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.cancel()


class _Completion:
    """Objects of one answer in OpenAI's form."""

    def __init__(self, model_name: str) -> None:
        self._base = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model_name}

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return the object of a whole answer."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning  # the name that DeepSeek's API gave it
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(answer)}
        usage, extension = _usage(answer), describe_answer(answer)
        return {**self._base, "object": "chat.completion", "choices": [choice], "usage": usage, "lyrics": extension}

    def chunk(self, delta: dict[str, Any] | None, finish_reason: str | None = None) -> dict[str, Any]:
        """Return the object of a piece; without `delta` it has no choice."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        choices = [] if delta is None else [choice]
        return {**self._base, "object": "chat.completion.chunk", "choices": choices}


def describe_answer(answer: Answer) -> dict[str, Any]:
    """Return what OpenAI's form has no place for: boxes, size of the image, reason for the end, seed and notices."""
    return {
        "boxes": answer.to_dict()["boxes"],
        "image_size": None if answer.picture_size is None else list(answer.picture_size),
        "finish_reason": answer.finish_reason,
        "seed": answer.options.seed,
        "notices": list(answer.notices),
    }


def _reason(answer: Answer) -> str:
    """Return OpenAI's name of the reason for an answer's end, which knows no time limit."""
    return _STOP if answer.finish_reason == _STOP else _LENGTH


def _usage(answer: Answer) -> dict[str, int]:
    prompt, completion = answer.prompt_tokens, answer.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _event(content: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % to_json(content)


async def _exhaust(pieces: AsyncIterator[str]) -> None:
    async for _ in pieces:
        pass
