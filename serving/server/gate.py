"""What every request passes: the key, the limits of number and time, the discarding of unread bodies, and counting."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import RequestError, describe_failure, overloaded
from .limits import MAX_DISCARD_SECONDS, MAX_DISCARDED_BYTES, ServerLimits
from .metrics import Metrics

OPEN_PATHS = ("/health",)  # need no key
_SLOW = 408
_CLIENT_LEFT = 499  # status in metrics, as other servers call it


class Gate:
    """ASGI application around another one.

    Args:
        application: ASGI application.
        limits: limits of the server.
        api_key: key that requests must bring, or `None`.
        metrics: metrics to count in.
        endpoints: paths that are counted by name.
    """

    def __init__(
        self,
        application: ASGIApp,
        *,
        limits: ServerLimits,
        api_key: str | None,
        metrics: Metrics,
        endpoints: tuple[str, ...],
    ) -> None:
        self._application = application
        self._limits = limits
        self._key = None if api_key is None else _digest(api_key.encode())
        self._metrics = metrics
        self._endpoints = endpoints
        self._served = 0  # requests that take a place; those without the key do not

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            return await self._application(scope, receive, send)
        exchange = _Exchange(scope, receive, send)
        started = time.monotonic()
        endpoint = scope["path"] if scope["path"] in self._endpoints else "other"
        self._metrics.active += 1
        try:
            await self._serve(scope, exchange)
        finally:
            self._metrics.active -= 1
            self._metrics.requests.add(endpoint=endpoint, status=str(exchange.status or _CLIENT_LEFT))
            self._metrics.request_seconds.observe(time.monotonic() - started, endpoint=endpoint)

    async def _serve(self, scope: Scope, exchange: _Exchange) -> None:
        """Run the application; its errors become answers."""
        limits = self._limits
        try:
            self._check_key(scope)
            with self._place(scope["method"]):
                # A client that does not read its answer holds a place no longer than this.
                async with asyncio.timeout(limits.body_timeout + limits.timeout + MAX_DISCARD_SECONDS):
                    await self._application(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001  (described to the client, and logged if it is unexpected)
            failure = describe_failure(error)
            if not exchange.started:
                await failure.response()(scope, exchange.receive, exchange.send)

    @contextmanager
    def _place(self, method: str) -> Iterator[None]:
        """Take one of the places for requests with work; those that only read need none."""
        if method != "POST":
            yield
            return
        if self._served >= self._limits.max_requests:
            raise overloaded(f"The server serves {self._limits.max_requests} requests at once, and no more.")
        self._served += 1
        try:
            yield
        finally:
            self._served -= 1

    def _check_key(self, scope: Scope) -> None:
        if self._key is None or scope["path"] in OPEN_PATHS:
            return
        scheme, _, sent = Headers(scope=scope).get("authorization", "").partition(" ")
        given = sent.strip().encode("latin-1")  # as headers are decoded, whatever their bytes mean
        if not hmac.compare_digest(_digest(given), self._key) or scheme.lower() != "bearer":
            message = "The key of this server is missing or wrong: send `Authorization: Bearer KEY`."
            raise RequestError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


class _Exchange:
    """A request and its answer.

    A connection is closed with an error when it still holds a body that nobody reads, so that its sender does not learn
    why. Therefore the rest of a body is read and dropped before an answer.

    Attributes:
        status: status of the answer, 0 before.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._is_coming = b"expect" not in headers  # otherwise its sender waits until the body is asked for
        self._is_read = False
        self.status = 0

    @property
    def started(self) -> bool:
        """Whether the answer began."""
        return self.status != 0

    async def receive(self) -> Message:
        """Return the next message of the client."""
        self._is_coming = True
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_read = True
        return message

    async def send(self, message: Message) -> None:
        """Send a message to the client."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if not self._is_read:
                await self._discard()
            if not self._is_read:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        await self._send(message)

    async def _discard(self) -> None:
        """Drop what is left of the body, unless its sender waits, or has had its time."""
        left = MAX_DISCARDED_BYTES if self._is_coming and self.status != _SLOW else 0
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_DISCARD_SECONDS):
                while not self._is_read and left > 0:
                    left -= len((await self.receive()).get("body", b""))


def _digest(key: bytes) -> bytes:
    """Return a hash, whose length says nothing about the key's."""
    return hashlib.sha256(key).digest()
