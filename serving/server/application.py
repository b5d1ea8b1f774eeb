"""The application: its endpoints, and everything in front of them."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..assistant import Lyrics
from .chat_completions import ChatCompletions
from .errors import RequestError
from .gate import Gate
from .images import ImageLoader
from .json_response import JSON
from .limits import ServerLimits
from .metrics import CONTENT_TYPE, Metrics
from .objects import Objects
from .remote_images import RemoteImages, is_public
from .service import Service
from .worker_threads import WorkerThreads

_WORKERS = 4  # threads that decode, so many images are decoded at once
_REFINING = 2  # one refines, and one waits to be the next


def create_application(
    assistant: Lyrics,
    *,
    model_name: str = "lyrics",
    limits: ServerLimits | None = None,
    api_key: str | None = None,
    allow_remote_images: bool = False,
    is_allowed_address: Callable[[str], bool] = is_public,
) -> Starlette:
    """Return the application (ASGI) of a server.

    Args:
        assistant: `Lyrics`, which others may use as well; it is not closed with the server.
        model_name: name by which clients call the model.
        limits: limits of a request and of the server.
        api_key: key that every request but those to `/health` must bring, or `None`.
        allow_remote_images: whether images that a request names by URL are fetched.
        is_allowed_address: function that says whether an IP address may be connected to for an image.

    Raises:
        ValueError: the key or the name is empty.
    """
    if api_key is not None and not api_key.strip():
        raise ValueError("The key is empty.")
    if not model_name.strip():
        raise ValueError("The name of the model is empty.")
    limits = ServerLimits() if limits is None else limits
    threads, metrics = WorkerThreads(_WORKERS), Metrics(assistant)
    remote = RemoteImages(limits.body_timeout, is_allowed_address) if allow_remote_images else None
    images = ImageLoader(limits, threads, remote, assistant.processor.open_pictures)
    service = Service(assistant, model_name, limits, threads, WorkerThreads(_REFINING), images, metrics)
    chat, objects, pages = ChatCompletions(service), Objects(service), _Pages(service)
    routes = [
        Route("/v1/chat/completions", chat.__call__, methods=["POST"]),
        Route("/v1/objects", objects.__call__, methods=["POST"]),
        Route("/v1/models", pages.models),
        Route("/v1/models/{name:path}", pages.model),
        Route("/health", pages.health),
        Route("/metrics", pages.metrics),
    ]
    gate = Middleware(
        Gate, limits=limits, api_key=api_key, metrics=metrics, endpoints=tuple(route.path for route in routes)
    )
    return Starlette(routes=routes, middleware=[gate], exception_handlers={HTTPException: _describe_http_error})


class _Pages:
    """Endpoints that only tell something."""

    def __init__(self, service: Service) -> None:
        self._service = service
        created = service.created
        self._model = {"id": service.model_name, "object": "model", "created": created, "owned_by": "lyrics"}

    async def models(self, request: Request) -> Response:
        """Return the list of the one model."""
        return JSON({"object": "list", "data": [self._model]})

    async def model(self, request: Request) -> Response:
        """Return the model by its name."""
        if (name := request.path_params["name"]) != self._service.model_name:
            message = f"There is no model {name!r:.100}; the model of this server is {self._service.model_name!r}."
            raise RequestError(404, message, code="model_not_found", param="model")
        return JSON(self._model)

    async def health(self, request: Request) -> Response:
        """Say that the server answers, and how much it has to do."""
        waiting, running = self._service.assistant.load()
        return JSON({"status": "ok", "waiting": waiting, "running": running})

    async def metrics(self, request: Request) -> Response:
        """Return the metrics."""
        return PlainTextResponse(self._service.metrics.render(), media_type=CONTENT_TYPE)


async def _describe_http_error(request: Request, error: Exception) -> Response:
    """Return the answer to a path or a method that does not exist."""
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    path = request.url.path
    if status == 405:
        message, code = f"{path} takes {(headers or {}).get('Allow', 'other methods')}.", "method_not_allowed"
    else:
        message, code = f"There is nothing at {path!r:.100}.", "not_found"
    return RequestError(status, message, code=code, headers=headers).response()
