"""Training of both stages: trainers, collators, arguments, datasets and checkpoints.

Trainers need the libraries of the extra `train` (`pip install 'ziya-lyrics[train]'`) and are imported on first access.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..datasets_lyrics.hf_datasets import DatasetsSource
from ..datasets_lyrics.webdataset import TarSource
from ..processing_lyrics.pretraining_inputs import add_stage_1_tokens
from .data.augmentation import Augmentation
from .data.datasets import BadRowError
from .pretraining_collator import LyricsPretrainingCollator
from .pretraining_config import LyricsPretrainingArguments
from .sft_collator import LyricsSFTCollator

if TYPE_CHECKING:
    from .pretraining_trainer import LyricsPretrainingTrainer
    from .sft_config import LyricsSFTConfig
    from .sft_trainer import LyricsSFTTrainer

_TRL = ("trl", "peft", "datasets", "accelerate")
_LAZY = {  # name -> its module, and the libraries that it needs
    "LyricsPretrainingTrainer": ("pretraining_trainer", ("accelerate",)),
    "LyricsSFTConfig": ("sft_config", _TRL),
    "LyricsSFTTrainer": ("sft_trainer", _TRL),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, libraries = _LAZY[name]
    if missing := [library for library in libraries if find_spec(library) is None]:
        raise ImportError(f"{name} needs {', '.join(missing)}: pip install 'ziya-lyrics[train]'.")
    return getattr(import_module(f".{module}", __name__), name)


class _RenamedModule(ModuleType):
    """Alias of a module's old name, because the `training_args.bin` of earlier checkpoints names classes by it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked of every module by `inspect`, which must not import TRL
            raise AttributeError(name)
        return getattr(import_module(_RENAMED[self.__name__], __name__), name)


_RENAMED = {f"{__name__}.pretraining_arguments": ".pretraining_config", f"{__name__}.dpo": ".dpo_trainer"}
sys.modules.update({old: _RenamedModule(old) for old in _RENAMED})


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
