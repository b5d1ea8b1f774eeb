"""Work outside of the event loop: decoding, refinement and downloads, each with its own bounded number of threads."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class WorkerThreads:
    """Threads for one kind of work.

    A call that is cancelled while it waits is dropped. One that runs goes on to its end, and keeps its thread until
    then, so that clients that leave cannot make others start.

    Args:
        count: largest number of threads at once; further calls wait.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="lyrics-server")

    async def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function in a thread, and return its result."""
        call = partial(contextvars.copy_context().run, partial(function, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
