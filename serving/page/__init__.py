"""A page in the browser to try a model with: images, what the refiner sees, questions. It needs the extra `demo`."""

from .examples import Example, examples_in_folder, shipped_examples
from .gradio_version import import_gradio
from .launching import PageAddress, launch_page
from .layout import build_page
from .session import PageSession

__all__ = [
    "Example",
    "PageAddress",
    "PageSession",
    "build_page",
    "examples_in_folder",
    "import_gradio",
    "launch_page",
    "shipped_examples",
]
