"""The server as a process: its socket, its signals, and an end that finishes running answers."""

from __future__ import annotations

import signal
import socket
from typing import Any

import uvicorn

from .limits import ServerLimits


def create_server(application: Any, limits: ServerLimits, *, log_level: str = "info") -> uvicorn.Server:
    """Return a server whose `run(sockets=[...])` serves until its `should_exit` is set, or a signal arrives.

    Args:
        application: application of `create_application`.
        limits: limits of the server. Beyond four times as many connections as requests, uvicorn answers 503 itself.
        log_level: level of the log on standard error.
    """
    config = uvicorn.Config(
        application,
        log_level=log_level,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=4 * limits.max_requests + 64,
        timeout_graceful_shutdown=int(limits.timeout) + 1,
    )
    return uvicorn.Server(config)


def run_server(application: Any, bound: socket.socket, limits: ServerLimits) -> None:
    """Serve until SIGINT or SIGTERM; running answers are finished. A second Ctrl-C ends them.

    Args:
        application: application of `create_application`.
        bound: socket of `bind_socket`, which is closed at the end.
        limits: limits of the server.
    """
    # After a clean end uvicorn raises the signal again, which otherwise would kill the process.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with bound:
            create_server(application, limits).run(sockets=[bound])
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, previous)
