"""Fetching of images that requests name by URL, from public addresses alone."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from .errors import RequestError
from .limits import MAX_REDIRECTS
from .worker_threads import WorkerThreads

_INTERNET = ipaddress.ip_network("2000::/3")  # all of IPv6 that is given out
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv6 addresses that a gateway turns into IPv4 ones
_REDIRECTS = (301, 302, 303, 307, 308)


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the internet, and not to this machine or a network around it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # such as one with a zone
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo and parsed.teredo[1])
        if parsed in _TRANSLATED:
            inner = ipaddress.IPv4Address(parsed.packed[-4:])
        if inner or parsed not in _INTERNET:
            return bool(inner) and is_public(str(inner))
    return parsed.is_global and not parsed.is_multicast


class RemoteImages:
    """Fetches images over http and https; proxies of the environment are not used.

    The address that was checked is the one that is connected to, so that a name cannot change its address in between.

    Args:
        seconds: longest time for one image.
        is_allowed: function that says whether an IP address may be connected to.
        count: largest number of images that are fetched at once.
    """

    def __init__(self, seconds: float, is_allowed: Callable[[str], bool] = is_public, count: int = 16) -> None:
        self._seconds = seconds
        self._is_allowed = is_allowed
        self._threads = WorkerThreads(count)  # slow servers keep no image from being decoded

    async def fetch(self, url: str, max_bytes: int, param: str) -> bytes:
        """Return the content of a URL.

        Raises:
            RequestError: it cannot be fetched, is too large, or its address is not public.
        """
        try:
            return await self._threads.run(self._fetch, url, max_bytes)
        except (OSError, ValueError, http.client.HTTPException) as error:
            message = f"The image {url[:200]!r} cannot be fetched: {error}"
            raise RequestError(400, message, code="image_not_fetched", param=param) from error

    def _fetch(self, url: str, max_bytes: int) -> bytes:
        deadline = time.monotonic() + self._seconds
        for _ in range(MAX_REDIRECTS + 1):
            content, location = self._fetch_once(_check_url(url), max_bytes, deadline)
            if location is None:
                return content
            url = urljoin(url, location)
        raise ValueError(f"it is redirected more than {MAX_REDIRECTS} times.")

    def _fetch_once(self, url: SplitResult, max_bytes: int, deadline: float) -> tuple[bytes, str | None]:
        """Return the content of a URL, or where it is redirected to."""
        connection = self._connect(url, deadline)
        # A socket's timeout counts from byte to byte: at the deadline it is shut, whatever has arrived.
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), _shut, (connection.sock,))
        timer.daemon = True
        timer.start()
        try:
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            path = quote(url.path or "/", safe="/%:@!$&'()*+,;=~")
            query = f"?{quote(url.query, safe='/?%:@!$&()*+,;=~[]')}" if url.query else ""
            connection.request("GET", path + query, headers={"User-Agent": "lyrics", "Accept": "image/*"})
            response = connection.getresponse()
            if response.status in _REDIRECTS and (location := response.getheader("Location")):
                return b"", location
            if response.status != 200:
                raise ValueError(f"its server answers {response.status}.")
            content = response.read(max_bytes + 1)
            if len(content) > max_bytes:
                raise ValueError(f"it is larger than the {max_bytes:,} bytes that are left.")
            if time.monotonic() >= deadline or (response.length or 0) > 0:
                raise ValueError("it did not arrive in time, or not completely.")
            return content, None
        finally:
            timer.cancel()
            connection.close()

    def _connect(self, url: SplitResult, deadline: float) -> http.client.HTTPConnection:
        """Return a connection to an address of the URL's host that is allowed."""
        host, is_secure = url.hostname or "", url.scheme == "https"
        port = url.port or (443 if is_secure else 80)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise ValueError("its address is not public.")
        seconds = max(0.1, deadline - time.monotonic())
        connection = http.client.HTTPConnection(host, port)
        connection.default_port = 443 if is_secure else 80  # with which the header `Host` names no port
        connection.sock = socket.create_connection((addresses[0], port), timeout=seconds)
        if is_secure:
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host, do_handshake_on_connect=False)
        return connection


def _check_url(url: str) -> SplitResult:
    """Return the parts of a URL of http or https without a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("only URLs of http and https are fetched.")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it holds a user's name.")
    return parts


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is closed by now
        return
