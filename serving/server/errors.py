"""Errors in OpenAI's form, and the status of each exception."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any

from transformers.utils import logging

from ..engine import BusyError, ClosedError
from .json_response import JSON

logger = logging.get_logger(__name__)


class RequestError(Exception):
    """A refused request.

    Args:
        status: int, status of HTTP.
        message: sentence for the user.
        code: word for programs, such as `"image_too_large"`.
        param: field of the request that is wrong, or `None`.
        headers: mapping of headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the error in OpenAI's form."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSON:
        """Return the answer to the request."""
        return JSON(self.to_dict(), self.status, self.headers)


def wrong_value(param: str, message: str) -> RequestError:
    """Return the error of a field with a wrong value."""
    return RequestError(400, message, code="invalid_value", param=param)


def overloaded(message: str, code: str = "server_overloaded") -> RequestError:
    """Return the error of a server that cannot answer now; clients try again after a second."""
    return RequestError(503, message, code=code, headers={"Retry-After": "1"})


def describe_failure(error: Exception) -> RequestError:
    """Return the error that a client gets for an exception; an unexpected one is logged, and not described."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, BusyError):
        return overloaded(str(error))
    if isinstance(error, ClosedError | CancelledError):
        return overloaded("The server shuts down.", "shutting_down")
    if isinstance(error, TimeoutError):
        return overloaded(str(error) or "The request took too long.", "timeout")
    if isinstance(error, ValueError):
        return RequestError(400, str(error), code="invalid_value")
    logger.error("A request failed.", exc_info=error)
    return RequestError(500, "The server failed; its log says why.", code="internal_error")
