"""Import of libraries that an extra of this package installs, where they are used."""

from __future__ import annotations

import importlib
from typing import Any

_EXTRAS = {
    "pyarrow": "refinement",
    "datasets": "refinement",
    "ray": "scale",
    **dict.fromkeys(("accelerate", "peft", "matplotlib", "scipy", "tensorboard", "trl", "yaml"), "train"),
    **dict.fromkeys(("bitsandbytes", "torchao"), "quantization"),
    **dict.fromkeys(("groundingdino", "segment_anything"), "original"),
    **dict.fromkeys(("starlette", "uvicorn"), "serve"),
    **dict.fromkeys(("pycocoevalcap", "rapidfuzz"), "evaluation"),
    "lmms_eval": "lmms-eval",
    "torchvision": "vision",
    "prompt_toolkit": "chat",
    "gradio": "demo",
    "openpyxl": "spreadsheets",
}


def describe_missing(name: str) -> str | None:
    """Return a message that names the extra which installs a module, or `None` for modules of other origin."""
    library = name.split(".")[0]
    extra = _EXTRAS.get(library)
    return None if extra is None else f"This needs {library}: pip install 'ziya-lyrics[{extra}]'."


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
        raise ImportError(describe_missing(name)) from error
