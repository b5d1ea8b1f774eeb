"""Work outside of the event loop: decoding, refinement and downloads, each with its own bounded number of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import anyio.to_thread

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class WorkerThreads:
    """Threads for one kind of work. A call that is cancelled is left to end by itself.

    Args:
        count: largest number of threads at once; further calls wait.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function in a thread, and return its result."""
        if self._limiter is None:  # it belongs to an event loop
            self._limiter = anyio.CapacityLimiter(self._count)
        return await anyio.to_thread.run_sync(
            lambda: function(*args, **kwargs), abandon_on_cancel=True, limiter=self._limiter
        )
