"""The answer to a question while it is written: pieces of text, then the whole; it can be waited for and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from threading import Condition
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .answer import Answer


class AnswerStream:
    """Iterate over it for pieces of text, which joined are `Answer.text`, or call `result` for the whole answer.

    While a language model reasons, the pieces are empty, so that a reader can leave at any time.

    Whoever leaves the loop early stops the answer. Several threads may read one stream. `async for` reads it without a
    thread.

    Attributes:
        notices: tuple of remarks about the images, complete when the first piece arrives.
        owner: object that answers; it lives as long as its stream.
    """

    def __init__(self) -> None:
        self.notices: tuple[str, ...] = ()
        self.owner: object = None
        self._changed = Condition()
        self._pieces: list[str] = []
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        self._cancelled = False
        self._wakers: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[str]:
        """Yield pieces of text as they are written.

        Raises:
            CancelledError: the answer was stopped before it began.
            TimeoutError: it did not begin in time.
            Exception: whatever stopped the model.
        """
        position = 0
        try:
            while True:
                with self._changed:
                    while position >= len(self._pieces) and not self.done:
                        self._changed.wait()
                    pieces = self._pieces[position:]
                if not pieces:
                    break
                position += len(pieces)
                yield from pieces
        finally:
            self.cancel()  # has no effect on a finished answer
        self.result()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield pieces of text as they are written, for a program with an event loop."""
        loop, position = asyncio.get_running_loop(), 0
        changed = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(changed.set)

        with self._changed:
            self._wakers.append(wake)
        try:
            while True:
                changed.clear()
                pieces, done = self._pieces[position:], self.done
                position += len(pieces)
                for piece in pieces:
                    yield piece
                if done and position >= len(self._pieces):
                    break
                if not pieces:
                    await changed.wait()
        finally:
            with self._changed:
                self._wakers.remove(wake)
            self.cancel()
        self.result()

    @property
    def done(self) -> bool:
        """Whether the answer is complete, or there will be none."""
        return self._answer is not None or self._error is not None

    @property
    def started(self) -> bool:
        """Whether a piece was written."""
        return bool(self._pieces)

    @property
    def cancelled(self) -> bool:
        """Whether the answer is to be stopped, or was."""
        return self._cancelled

    def cancel(self) -> None:
        """Stop the answer after the token that is being computed; a finished answer stays as it is."""
        with self._changed:
            self._cancelled = self._cancelled or not self.done

    def result(self, timeout: float | None = None) -> Answer:
        """Wait for the whole answer. An interrupted wait (Ctrl-C) stops the answer.

        Args:
            timeout: seconds to wait, or `None`; the answer goes on after them.

        Raises:
            CancelledError: the answer was stopped before it began.
            TimeoutError: it did not begin in time, or the wait is over.
            Exception: whatever stopped the model.
        """
        try:
            with self._changed:
                if not self._changed.wait_for(lambda: self.done, timeout):
                    raise TimeoutError(f"The answer is not complete after {timeout:g} seconds.")
        except KeyboardInterrupt:
            self.cancel()
            raise
        if self._error is not None:
            raise self._error
        if self._answer is None:
            raise CancelledError
        return self._answer

    # ---------------------------------------------------------------- for the one that writes the answer

    def write(self, piece: str) -> None:
        """Add a piece of text."""
        with self._changed:
            self._pieces.append(piece)
            self._wake()

    def finish(self, answer: Answer) -> None:
        """Complete the answer."""
        with self._changed:
            self._answer = answer
            self._wake()

    def fail(self, error: BaseException) -> None:
        """End the stream with an error; one that has ended stays as it is."""
        with self._changed:
            if not self.done:
                self._error = error
                self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        for wake in self._wakers:
            wake()
