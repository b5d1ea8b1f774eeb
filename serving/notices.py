"""Remarks about pictures that a model can hardly answer about."""

from __future__ import annotations

from PIL import Image

from ..processing_lyrics import LyricsProcessor, VisualObjects
from .refined_pictures import NoticeCheck

UNFAMILIAR = (
    "This picture does not look like those that the model was trained on, by what its refiner sees in it. "
    "The answer may mean nothing."
)


def notice_unfamiliar(processor: LyricsProcessor) -> NoticeCheck:
    """Return a check that remarks on a picture that does not look familiar to the refiner; see `looks_familiar`.

    Args:
        processor: processor of the model.
    """

    def check(picture: Image.Image, objects: VisualObjects) -> str | None:
        return None if processor.looks_familiar(objects) else UNFAMILIAR

    return check
