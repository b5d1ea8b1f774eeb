"""Reading of a request's body as JSON, within its limits."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import Request

from .errors import RequestError
from .limits import MAX_JSON_VALUES, ServerLimits
from .worker_threads import WorkerThreads


async def read_json(request: Request, limits: ServerLimits, threads: WorkerThreads) -> dict[str, Any]:
    """Return the JSON object of a request.

    Raises:
        RequestError: it is too large (413), arrives too slowly (408), is of another type (415), or is no JSON object
            (400).
        ClientDisconnect: the client left.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # any web page may send other types in its visitors' names
        message = f"The request must have the header `Content-Type: application/json`, got {kind or 'none'}."
        raise RequestError(415, message, code="unsupported_media_type")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.max_body_bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_body_bytes:
                    raise _too_large(limits)
    except TimeoutError:
        message = f"The request did not arrive within {limits.body_timeout:g} seconds."
        raise RequestError(408, message, code="timeout") from None
    return await threads.run(_parse, bytes(body), limits)


def _too_large(limits: ServerLimits) -> RequestError:
    message = f"The request is larger than {limits.max_body_bytes:,} bytes."
    return RequestError(413, message, code="request_too_large")


def _parse(body: bytes, limits: ServerLimits) -> dict[str, Any]:
    """Return a JSON object; the number of its values is limited before they take memory."""
    marks = sum(map(body.count, (b",", b"[", b"{")))
    if marks > MAX_JSON_VALUES + limits.max_text:  # those in texts are not told apart
        raise RequestError(400, f"The request has more than {MAX_JSON_VALUES:,} values.", code="too_many_values")
    try:
        parsed = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(400, f"The request is no JSON: {reason}.", code="invalid_json") from None
    if not isinstance(parsed, dict):
        raise RequestError(400, "The request must be a JSON object.", code="invalid_json")
    return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
