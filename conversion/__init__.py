"""Conversion of foreign checkpoints to Lyrics' own models, and composition and merging of Lyrics' models."""

from .compose import compose
from .grounding_dino import load_grounding_dino
from .merge import merge_adapter
from .mqformer import load_mqformer
from .ram import load_ram
from .refiner import load_original_refiner
from .sam import load_sam

__all__ = [
    "compose",
    "load_grounding_dino",
    "load_mqformer",
    "load_original_refiner",
    "load_ram",
    "load_sam",
    "merge_adapter",
]
