"""Remarks about images that a model can hardly answer about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..processing_lyrics import LyricsProcessor, VisualObjects
from ..processing_lyrics.picture_cache import OpenedPicture
from .refined_pictures import NoticeCheck

UNFAMILIAR = (
    "This image does not look like those that the model was trained on, by what its refiner sees in it. "
    "The answer may mean nothing."
)


@dataclass(frozen=True)
class Notices:
    """What is remarked on: an image that does not look familiar to the refiner (`looks_familiar`), and more.

    Attributes:
        processor: processor of the model.
        checks: sequence of further checks. They see the image, which is decoded for them.
    """

    processor: LyricsProcessor
    checks: Sequence[NoticeCheck] = ()

    def about(self, picture: OpenedPicture, objects: VisualObjects) -> list[str]:
        """Return the remarks on an image and its objects."""
        remarks = [] if self.processor.looks_familiar(objects) else [UNFAMILIAR]
        return remarks + [one for check in self.checks if (one := check(picture.picture, objects)) is not None]
