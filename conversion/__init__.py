"""Original checkpoints -> Lyrics' own models."""

from .grounding_dino import load_grounding_dino
from .mqformer import load_mqformer
from .ram import load_ram
from .refiner import load_original_refiner
from .sam import load_sam

__all__ = ["load_grounding_dino", "load_mqformer", "load_original_refiner", "load_ram", "load_sam"]
