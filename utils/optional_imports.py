"""Libraries that come with an extra of this package, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

_EXTRAS = {"pyarrow": "refinement", "datasets": "refinement", "ray": "scale"}


def import_optional(name: str) -> Any:
    """Import a module of an optional library.

    Raises:
        ImportError: naming the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        library = name.split(".")[0]
        raise ImportError(f"This needs {library}: pip install 'ziya-lyrics[{_EXTRAS[library]}]'.") from error
