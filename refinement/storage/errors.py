"""Errors of a store."""

from __future__ import annotations

from ...datasets_lyrics.sources import DuplicateKeyError


class StoreError(ValueError):
    """A store cannot be used; the message names the file, or what does not match."""


class StaleStoreError(StoreError):
    """Stored objects come from another refiner, or belong to another image, than the one at hand."""


class TooManyFailuresError(StoreError):
    """More images failed than `max_failure_rate` allows."""


__all__ = ["DuplicateKeyError", "StaleStoreError", "StoreError", "TooManyFailuresError"]
