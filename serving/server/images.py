"""Images of requests: data URLs, and remote ones where the server allows them; decoded outside of the event loop.

An image that a client sends again with each turn is decoded once, as long as the processor's cache knows it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...processing_lyrics.picture_cache import OpenedPicture
from ..image_files import read_image_size
from .errors import RequestError, wrong_value
from .fields import shorten
from .limits import ServerLimits
from .remote_images import RemoteImages
from .worker_threads import WorkerThreads

_REMOTE = ("http://", "https://")


@dataclass(frozen=True)
class ImageSource:
    """Where an image of a request comes from.

    Attributes:
        url: data URL, or URL of http or https.
        param: name of the field that holds it.
    """

    url: str
    param: str

    @property
    def is_remote(self) -> bool:
        """Whether it must be fetched."""
        return self.url[:8].lower().startswith(_REMOTE)


def read_image_source(value: Any, param: str) -> ImageSource:
    """Return the source of an image, given as a URL or as an object with `url`.

    Raises:
        RequestError: it is neither a data URL nor one of http or https, such as a path.
    """
    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str):
        raise wrong_value(param, f"An image must be an object with `url`, got {shorten(value)}.")
    source = ImageSource(url, param)
    if not source.is_remote and url[:5].lower() != "data:":
        message = f"An image must be a data URL (`data:image/png;base64,...`), got {shorten(url)}."
        raise RequestError(400, message, code="invalid_image_url", param=param)
    return source


class ImageLoader:
    """Loads the images of requests within their limits.

    Args:
        limits: limits of the server.
        threads: threads that decode.
        remote: fetches remote images, or `None` where they are refused.
        open_pictures: function from the contents of files to images, that of the processor.
    """

    def __init__(
        self,
        limits: ServerLimits,
        threads: WorkerThreads,
        remote: RemoteImages | None,
        open_pictures: Callable[[Sequence[bytes]], list[OpenedPicture]],
    ) -> None:
        self._limits = limits
        self._threads = threads
        self._remote = remote
        self._open_pictures = open_pictures

    async def load(self, sources: Sequence[ImageSource], max_pixels: int | None = None) -> list[OpenedPicture]:
        """Return upright RGB images.

        Args:
            sources: sequence of sources.
            max_pixels: largest number of pixels together, by default that of the server.

        Raises:
            RequestError: naming the image that cannot be fetched or read, or is too large.
        """
        contents = await self._fetch(sources)
        budget = min(max_pixels or self._limits.max_pixels, self._limits.max_pixels)
        return await self._threads.run(self._open_all, sources, contents, budget)

    async def _fetch(self, sources: Sequence[ImageSource]) -> list[bytes | None]:
        """Return the contents of the remote images, and `None` for the others."""
        remote = [source for source in sources if source.is_remote]
        if not remote:
            return [None] * len(sources)
        if self._remote is None:
            message = "This server fetches no images: send them as data URLs."
            raise RequestError(400, message, code="remote_images_disabled", param=remote[0].param)
        budget = self._limits.max_body_bytes
        contents: dict[str, bytes] = {}
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                for source in remote:
                    if source.url not in contents:
                        contents[source.url] = await self._remote.fetch(source.url, budget, source.param)
                        budget -= len(contents[source.url])
        except TimeoutError:
            message = f"Images could not be fetched within {self._limits.body_timeout:g} seconds."
            raise RequestError(400, message, code="image_not_fetched", param=remote[0].param) from None
        return [contents.get(source.url) for source in sources]

    def _open_all(
        self, sources: Sequence[ImageSource], contents: Sequence[bytes | None], max_pixels: int
    ) -> list[OpenedPicture]:
        """Open images after their sizes were added up."""
        files = [
            _decode_data_url(source) if content is None else content
            for source, content in zip(sources, contents, strict=True)
        ]
        left = max_pixels
        for source, file in zip(sources, files, strict=True):
            width, height = _read_size(file, source.param)
            left -= width * height
            if left < 0:
                message = f"The images have more than {max_pixels:,} pixels together; this one has {width} x {height}."
                raise RequestError(400, message, code="image_too_large", param=source.param)
        return [self._open(file, source.param) for source, file in zip(sources, files, strict=True)]

    def _open(self, file: bytes, param: str) -> OpenedPicture:
        try:
            return self._open_pictures([file])[0]
        except ValueError as error:
            raise RequestError(400, str(error), code="invalid_image", param=param) from error


def _decode_data_url(source: ImageSource) -> bytes:
    header, comma, encoded = source.url.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        message = "A data URL must be in base64, as in `data:image/png;base64,...`."
        raise RequestError(400, message, code="invalid_image_url", param=source.param)
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        message = f"The base64 of the image is damaged: {error}."
        raise RequestError(400, message, code="invalid_base64", param=source.param) from None


def _read_size(file: bytes, param: str) -> tuple[int, int]:
    try:
        return read_image_size(file)
    except ValueError as error:
        raise RequestError(400, str(error), code="invalid_image", param=param) from error
