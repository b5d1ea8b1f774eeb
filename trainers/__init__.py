"""Training of both stages: trainers, collators, arguments, data and checkpoints.

What needs TRL, the second stage, is imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..datasets_lyrics.hf_datasets import DatasetsSource
from ..datasets_lyrics.webdataset import TarSource
from .data.augmentation import Augmentation
from .data.datasets import BadRowError
from .pretraining_collator import LyricsPretrainingCollator, add_stage_1_tokens
from .pretraining_config import LyricsPretrainingArguments
from .pretraining_trainer import LyricsPretrainingTrainer
from .sft_collator import LyricsSFTCollator

if TYPE_CHECKING:
    from .sft_config import LyricsSFTConfig
    from .sft_trainer import LyricsSFTTrainer

_WITH_TRL = {"LyricsSFTConfig": ".sft_config", "LyricsSFTTrainer": ".sft_trainer"}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TRL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WITH_TRL[name], __name__), name)


__all__ = [
    "Augmentation",
    "BadRowError",
    "DatasetsSource",
    "LyricsPretrainingArguments",
    "LyricsPretrainingCollator",
    "LyricsPretrainingTrainer",
    "LyricsSFTCollator",
    "LyricsSFTConfig",
    "LyricsSFTTrainer",
    "TarSource",
    "add_stage_1_tokens",
]
