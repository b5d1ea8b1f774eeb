"""`/v1/objects`: what the refiner sees in an image."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...processing_lyrics import VisualObjects
from ...processing_lyrics.picture_cache import OpenedPicture
from ..refined_pictures import MAX_REGIONS, MAX_TAG_CHARACTERS, MAX_TAGS, THRESHOLDS
from .disconnection import unless_disconnected
from .errors import RequestError, wrong_value
from .fields import check_model, check_names, read_flag, read_number, read_strings, shorten
from .images import ImageSource, read_image_source
from .json_response import JSON
from .limits import MAX_MASK_PIXELS
from .mask_encoding import encode_mask
from .request_body import read_json
from .service import Service


@dataclass(frozen=True)
class ObjectsRequest:
    """An image to be refined.

    Attributes:
        source: source of the image.
        tags: words to look for, or `None` to ask the tagger.
        masks: whether masks are wanted.
        thresholds: other thresholds of the refiner.
    """

    source: ImageSource
    tags: list[str] | None
    masks: bool
    thresholds: dict[str, float]


class Objects:
    """Endpoint of objects.

    Args:
        service: what the endpoints share.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, request: Request) -> Response:
        """Return the objects of an image."""
        service, started = self._service, time.monotonic()
        body = await read_json(request, service.limits, service.threads)
        asked = read_objects_request(body, service.model_name)
        if not service.assistant.processor.has_refiner and service.assistant.processor.store is None:
            raise RequestError(400, "The model of this server has no refiner.", code="no_refiner")
        most = MAX_MASK_PIXELS if asked.masks else None
        picture = (await unless_disconnected(request, service.images.load([asked.source], most)))[0]
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + service.limits.timeout - _since(started)):
                work = service.refining.run(self._see, picture, asked)
                return JSON(await unless_disconnected(request, work))
        except TimeoutError:
            raise TimeoutError(f"The image was not refined within {service.limits.timeout:g} seconds.") from None

    def _see(self, picture: OpenedPicture, asked: ObjectsRequest) -> dict[str, Any]:
        thresholds = asked.thresholds or None
        objects = self._service.assistant.see(picture, tags=asked.tags, masks=asked.masks, thresholds=thresholds)
        described = describe_objects(objects, picture.size)
        return {"object": "lyrics.objects", "model": self._service.model_name, **described}


def read_objects_request(body: Mapping[str, Any], model_name: str) -> ObjectsRequest:
    """Read and check a request.

    Raises:
        RequestError: naming the field that is wrong or unknown.
    """
    check_names(body, ("model", "image", "tags", "masks", "thresholds"), {})
    check_model(body, model_name)
    tags = read_strings(body, "tags", MAX_TAGS, MAX_TAG_CHARACTERS)
    given = body.get("thresholds")
    if given is not None and not isinstance(given, dict):
        raise wrong_value("thresholds", f"`thresholds` must be an object, got {shorten(given)}.")
    check_names(given or {}, THRESHOLDS, {})
    thresholds = {}
    for name in given or {}:
        most, whole = (MAX_REGIONS, True) if name == "max_regions" else (1, False)
        if (value := read_number(given or {}, name, int(whole), most, whole=whole)) is not None:
            thresholds[name] = value
    source = read_image_source(body.get("image"), "image")
    return ObjectsRequest(source, tags or None, read_flag(body, "masks"), thresholds)


def describe_objects(objects: VisualObjects, size: tuple[int, int]) -> dict[str, Any]:
    """Return objects with boxes in [0, 1] and in pixels, and masks as COCO writes them.

    Args:
        objects: objects of an image.
        size: width and height of the image.
    """
    width, height = size
    described: list[dict[str, Any]] = []
    for index, summary in enumerate(objects.summary()):
        x1, y1, x2, y2 = objects.boxes[index].tolist()
        pixels = [round(value, 1) for value in (x1 * width, y1 * height, x2 * width, y2 * height)]
        mask = None if objects.masks is None else encode_mask(objects.masks[index])
        described.append({**summary, "pixels": pixels, **({"mask": mask} if mask else {})})
    return {"image_size": [width, height], "tags": list(objects.tags), "data": described}


def _since(started: float) -> float:
    return time.monotonic() - started
