"""Training of both stages: trainers, collators, arguments, data and checkpoints."""

from .data import BadRowError, DatasetsSource, TarSource
from .pretraining_arguments import LyricsPretrainingArguments
from .pretraining_collator import LyricsPretrainingCollator, add_stage_1_tokens
from .pretraining_trainer import LyricsPretrainingTrainer

__all__ = [
    "BadRowError",
    "DatasetsSource",
    "LyricsPretrainingArguments",
    "LyricsPretrainingCollator",
    "LyricsPretrainingTrainer",
    "TarSource",
    "add_stage_1_tokens",
]
