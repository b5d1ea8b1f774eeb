"""Conversion of foreign checkpoints to Lyrics' own models, and composition and merging of Lyrics' models."""

from .compose import compose, replace_parts
from .compose_checks import PartPlaces
from .export import export_model
from .grounding_dino import load_grounding_dino
from .merge import merge_adapter
from .mqformer import load_mqformer
from .push import push_model
from .ram import load_ram
from .refiner import load_original_refiner
from .sam import load_sam

__all__ = [
    "PartPlaces",
    "compose",
    "export_model",
    "load_grounding_dino",
    "load_mqformer",
    "load_original_refiner",
    "load_ram",
    "load_sam",
    "merge_adapter",
    "push_model",
    "replace_parts",
]
