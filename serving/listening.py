"""Sockets of a server or a page, bound before a model is loaded."""

from __future__ import annotations

import socket
import sys


def bind_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen yet, so that a taken port is known before a model is loaded.

    Raises:
        OSError: the address is taken, or does not exist on this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise OSError(f"There is no address {host!r}: {error}") from error
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    bound = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":  # there it would let two servers take one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise OSError(f"Cannot listen on {host} port {port}: {error.strerror or error}.") from error
    return bound
