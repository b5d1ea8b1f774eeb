"""Limits of the server: what one request may cost, and how many are served at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

# Limits that no deployment has a reason to change.
MAX_JSON_VALUES = 50_000  # a list of 2 bytes in JSON takes 56 bytes as an object
MAX_MESSAGES = 200
MAX_STOP_STRINGS = 4  # as OpenAI
MAX_STOP_CHARACTERS = 200
MAX_MASK_PIXELS = 4_000_000  # every object has a mask of the image's size
MAX_DISCARDED_BYTES = 256 * 2**20  # of a refused body, so that its sender reads why it was refused
MAX_DISCARD_SECONDS = 5.0
MAX_REDIRECTS = 3


@dataclass(frozen=True)
class ServerLimits:
    """Limits of a server. Its memory for requests is at most about `max_requests` x (2 `max_body_bytes` + 3 bytes x
    `max_pixels`).

    Attributes:
        max_body_bytes: largest size of a request, and of the remote images of one request together, in bytes.
        max_images: largest number of images in a request.
        max_pixels: largest number of pixels of all images of a request together.
        max_text: largest number of characters of all texts of a request together.
        max_tokens: largest number of tokens of an answer.
        max_requests: largest number of requests that are served at once.
        timeout: seconds from the arrival of a request to the end of its answer.
        body_timeout: seconds within which a request, or its remote images, must have arrived.
    """

    max_body_bytes: int = 20 * 2**20
    max_images: int = 8
    max_pixels: int = 25_000_000
    max_text: int = 50_000
    max_tokens: int = 1024
    max_requests: int = 64
    timeout: float = 120.0
    body_timeout: float = 30.0

    def __post_init__(self) -> None:
        """Check that all limits are positive numbers."""
        for field in fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number or value <= 0 or (isinstance(field.default, int) and not isinstance(value, int)):
                kind = "whole number" if isinstance(field.default, int) else "number of seconds"
                raise ValueError(f"{field.name} must be a {kind} above 0, got {value!r}.")
