"""The folder of images that the stores of `tests/refinement` are made of."""

from ..refinement.conftest import photos

__all__ = ["photos"]
