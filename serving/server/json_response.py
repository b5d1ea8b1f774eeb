"""JSON in UTF-8, also of text that UTF-8 cannot hold."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response


def to_json(content: Any) -> bytes:
    """Return JSON in UTF-8; lone surrogates, which a request may hold and a message may quote, become escapes."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


class JSON(Response):
    """Response of JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return to_json(content)
