"""The queue of questions, and the one thread that runs the model for those that came together."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Sequence

from .answering import Answerer, Request


class BusyError(RuntimeError):
    """As many questions wait as may wait."""


class ClosedError(RuntimeError):
    """The model takes no more questions."""


class Engine:
    """Answers questions in a thread of its own. It starts with the first question.

    Args:
        answerer: `Answerer`.
        max_batch_size: largest number of questions that are answered at once.
        max_waiting: largest number of questions that wait, or `None`.
    """

    def __init__(self, answerer: Answerer, max_batch_size: int, max_waiting: int | None) -> None:
        self.answerer = answerer
        self.max_batch_size = max_batch_size
        self.max_waiting = max_waiting
        self._waiting: deque[Request] = deque()
        self._changed = threading.Condition()
        self._running: list[Request] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        atexit.register(_end, weakref.ref(self))  # a thread that computes while Python ends may crash it

    def submit(self, requests: Sequence[Request]) -> None:
        """Let questions wait for their answers; those that are submitted together are answered together.

        Raises:
            BusyError: too many questions wait already; none of these is taken.
            ClosedError: the engine was closed.
        """
        with self._changed:
            if self._closed:
                raise ClosedError("This model was closed and takes no more questions.")
            if self.max_waiting is not None and len(self._waiting) + len(requests) > self.max_waiting:
                raise BusyError(f"{len(self._waiting)} questions wait already, and the limit is {self.max_waiting}.")
            self._waiting.extend(requests)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="lyrics-engine", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def load(self) -> tuple[int, int]:
        """Return the numbers of questions that wait and that are being answered."""
        with self._changed:
            return len(self._waiting), sum(not request.stream.done for request in self._running)

    def close(self, finish: bool = True, wait: bool = True) -> None:
        """Take no more questions, and end.

        Args:
            finish: whether the questions that were taken are answered first; otherwise they end as they are.
            wait: whether to return after the last answer only.
        """
        with self._changed:
            self._closed = True
            if not finish:
                for request in (*self._waiting, *self._running):
                    request.stream.cancel()
            self._changed.notify_all()
            thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _work(self) -> None:
        while batch := self._take():
            try:
                self.answerer.answer(batch)
            except Exception as error:  # noqa: BLE001  (whoever asked gets it)
                for request in batch:
                    request.stream.fail(error)
            with self._changed:
                self._running = []

    def _take(self) -> list[Request]:
        """Return the question that waits for longest, and others that go with it; none after the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return []
                first = self._waiting[0]
                batch: list[Request] = []
                limit = self.max_batch_size
                for request in list(self._waiting):
                    if not request.goes_with(first):
                        continue
                    limit = min(limit, request.batch_limit)
                    if len(batch) >= limit:
                        break
                    batch.append(request)
                    self._waiting.remove(request)
                self._running = batch
                return batch


def _end(engine: weakref.ref[Engine]) -> None:
    """End an engine together with its process."""
    if (alive := engine()) is not None:
        alive.close(finish=False)
