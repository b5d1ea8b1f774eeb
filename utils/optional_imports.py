"""Import of libraries that an extra of this package installs, where they are used."""

from __future__ import annotations

import importlib
from typing import Any

_EXTRAS = {"pyarrow": "refinement", "datasets": "refinement", "ray": "scale"}


def import_optional(name: str) -> Any:
    """Import and return a module of an optional library.

    Args:
        name: str, dotted name, such as `"pyarrow.parquet"`.

    Raises:
        ImportError: naming the extra that installs the library.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        library = name.split(".")[0]
        raise ImportError(f"This needs {library}: pip install 'ziya-lyrics[{_EXTRAS[library]}]'.") from error
