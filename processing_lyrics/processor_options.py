"""Options of a call of `LyricsProcessor`, by modality.

Transformers reads the annotations as types, so that this file does not import `annotations` from `__future__`.
"""

from typing import Any

from transformers.processing_utils import ImagesKwargs, ProcessingKwargs


class LyricsImagesKwargs(ImagesKwargs, total=False):
    """Options of the image processor, and images that the processor itself has opened."""

    opened: list[Any]


class LyricsProcessorKwargs(ProcessingKwargs, total=False):
    """Options of a call; prompts are padded on the left, for generation."""

    images_kwargs: LyricsImagesKwargs  # pyright: ignore[reportIncompatibleVariableOverride]
    _defaults = {"text_kwargs": {"padding_side": "left"}}  # pyright: ignore[reportGeneralTypeIssues]
