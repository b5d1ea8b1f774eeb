"""One object of the shipped micro model, which all tests of the doors share."""

from __future__ import annotations

import pytest

from lyrics import MICRO_CHECKPOINT, Lyrics, LyricsForConditionalGeneration, LyricsProcessor
from lyrics.serving import CacheLimits


@pytest.fixture(scope="session")
def parts():
    """The shipped micro model and its processor."""
    model = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT)
    return model, LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)


@pytest.fixture(scope="session")
def assistant(parts):
    """The object behind all doors, not to be closed."""
    return Lyrics(*parts)


@pytest.fixture(scope="session")
def forgetful(parts):
    """The same without caches."""
    processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)  # its own: what is refined is kept in the processor
    return Lyrics(parts[0], processor, caches=CacheLimits(0, 0, 0, vision=0))
