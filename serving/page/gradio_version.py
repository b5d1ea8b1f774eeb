"""Import of Gradio in a version that has what the page needs."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ...utils.optional_imports import import_optional

OLDEST = (6, 31)
_INSTALL = "pip install 'ziya-lyrics[demo]' 'Pillow<13'"


def import_gradio() -> Any:
    """Import and return Gradio. It reports nothing about its use to anybody.

    Raises:
        ImportError: it is missing, or of a version that the page cannot run on.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    installed = installed_version()
    if installed is not None:
        check_gradio_version(installed)  # before the import: that of an old version fails in other libraries
    return import_optional("gradio")


def installed_version() -> str | None:
    """Return the version of Gradio that is installed, or `None`."""
    try:
        return version("gradio")
    except PackageNotFoundError:
        return None


def check_gradio_version(installed: str) -> None:
    """Raise an error for a version of Gradio that the page cannot run on.

    Args:
        installed: version, such as `"6.31.0"`.

    Raises:
        ImportError: naming both versions and the way out.
    """
    numbers = tuple(int(digits) for digits in re.findall(r"\d+", installed)[:2])
    if OLDEST <= numbers < (OLDEST[0] + 1,):
        return
    reason = ""
    if numbers < OLDEST:
        reason = " pip silently takes an old one where Pillow 13 is held, which no newer Gradio allows."
    raise ImportError(
        f"The page needs gradio from {OLDEST[0]}.{OLDEST[1]} on, below {OLDEST[0] + 1}, and {installed} is installed."
        f"{reason} Install another: {_INSTALL}."
    )
