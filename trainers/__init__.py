"""Training of both stages: trainers, collators, arguments, data and checkpoints."""

from .pretraining_collator import LyricsPretrainingCollator

__all__ = ["LyricsPretrainingCollator"]
