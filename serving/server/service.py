"""What the endpoints of a server share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..assistant import Lyrics
from .images import ImageLoader
from .limits import ServerLimits
from .metrics import Metrics
from .worker_threads import WorkerThreads


@dataclass(frozen=True)
class Service:
    """Model and tools of a server.

    Attributes:
        assistant: `Lyrics`, which answers.
        model_name: name by which clients call the model.
        limits: limits of a request.
        threads: threads that parse and decode.
        refining: threads that refine for `/v1/objects`.
        images: loader of images.
        metrics: metrics.
        created: time of the start, in seconds since 1970.
    """

    assistant: Lyrics
    model_name: str
    limits: ServerLimits
    threads: WorkerThreads
    refining: WorkerThreads
    images: ImageLoader
    metrics: Metrics
    created: int = field(default_factory=lambda: int(time.time()))
