"""Lyrics: a vision-language model that looks at an image twice, on Hugging Face Transformers.

Importing this package registers its models and processors with Transformers' auto classes, so that
`AutoModel.from_pretrained("IDEA-CCNL/Ziya-Visual-Lyrics-14B")` and `pipeline("image-text-to-text")` know them.

The names that most programs need are here, whatever folder they come from:

- questions and answers: `Lyrics`, with `Answer`, `AnswerStream` and `Chat`;
- models: `LyricsForConditionalGeneration`, `LyricsForPreTraining`, `LyricsModel`, `LyricsVisualRefiner` and their
  configurations;
- processing: `LyricsProcessor`, `VisualObjects`;
- training: `LyricsPretrainingTrainer`, `LyricsSFTTrainer`, with arguments and collators (extra `train`);
- stores of refined images: `refine_dataset`, `RefinementStore` (extra `refinement`);
- conversion: `compose`, `merge_adapter`, `load_original_refiner`.

`python -m lyrics` is the command line. The distribution is called `ziya-lyrics`.
"""

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

# Absolute imports: test runners also import this file under the name of the checkout's folder, where relative ones
# would load every module a second time.
from lyrics.modeling_lyrics import (
    LyricsAttribution,
    LyricsConfig,
    LyricsForConditionalGeneration,
    LyricsForImageTextRetrieval,
    LyricsForPreTraining,
    LyricsModel,
    LyricsMQFormerConfig,
    LyricsMQFormerModel,
    LyricsPreTrainedModel,
    LyricsPreTrainingConfig,
    LyricsPreTrainingOutput,
    LyricsRefinerConfig,
    LyricsVisualRefiner,
    RamConfig,
    RamForImageTagging,
    RamModel,
    attribute_answer,
    describe_provenance,
)
from lyrics.modeling_lyrics.checkpoint_model import CARD_WRITERS as _CARD_WRITERS
from lyrics.processing_lyrics import LyricsImageProcessor, LyricsProcessor, VisualObjects, parse_spatial_text

if TYPE_CHECKING:
    from lyrics.assets import MICRO_CHECKPOINT, MICRO_PRETRAINING, MICRO_SEARCH, SCENE_PICTURE
    from lyrics.conversion import compose, load_original_refiner, merge_adapter
    from lyrics.refinement import RefinementStore, refine_dataset
    from lyrics.serving import Answer, AnswerStream, Chat, Lyrics
    from lyrics.trainers import (
        LyricsPretrainingArguments,
        LyricsPretrainingCollator,
        LyricsPretrainingTrainer,
        LyricsSFTCollator,
        LyricsSFTConfig,
        LyricsSFTTrainer,
    )

__version__ = _version("ziya-lyrics")


def _write_card(folder: str, repo_id: str) -> None:
    """Write the card of a model that is uploaded with `push_to_hub`; what that needs is imported then."""
    import_module("lyrics.utils.model_card.pushing").replace_template(folder, repo_id)


_CARD_WRITERS.append(_write_card)

_LAZY = {  # folder -> names that are imported from it when they are first asked for
    "assets": ("MICRO_CHECKPOINT", "MICRO_PRETRAINING", "MICRO_SEARCH", "SCENE_PICTURE"),
    "conversion": ("compose", "load_original_refiner", "merge_adapter"),
    "refinement": ("RefinementStore", "refine_dataset"),
    "serving": ("Answer", "AnswerStream", "Chat", "Lyrics"),
    "trainers": (
        "LyricsPretrainingArguments",
        "LyricsPretrainingCollator",
        "LyricsPretrainingTrainer",
        "LyricsSFTCollator",
        "LyricsSFTConfig",
        "LyricsSFTTrainer",
    ),
}
_FOLDER_OF = {name: folder for folder, names in _LAZY.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _FOLDER_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lyrics.{_FOLDER_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FOLDER_OF})


__all__ = [
    "MICRO_CHECKPOINT",
    "MICRO_PRETRAINING",
    "MICRO_SEARCH",
    "SCENE_PICTURE",
    "Answer",
    "AnswerStream",
    "Chat",
    "Lyrics",
    "LyricsAttribution",
    "LyricsConfig",
    "LyricsForConditionalGeneration",
    "LyricsForImageTextRetrieval",
    "LyricsForPreTraining",
    "LyricsImageProcessor",
    "LyricsMQFormerConfig",
    "LyricsMQFormerModel",
    "LyricsModel",
    "LyricsPreTrainedModel",
    "LyricsPreTrainingConfig",
    "LyricsPreTrainingOutput",
    "LyricsPretrainingArguments",
    "LyricsPretrainingCollator",
    "LyricsPretrainingTrainer",
    "LyricsProcessor",
    "LyricsRefinerConfig",
    "LyricsSFTCollator",
    "LyricsSFTConfig",
    "LyricsSFTTrainer",
    "LyricsVisualRefiner",
    "RamConfig",
    "RamForImageTagging",
    "RamModel",
    "RefinementStore",
    "VisualObjects",
    "__version__",
    "attribute_answer",
    "compose",
    "describe_provenance",
    "load_original_refiner",
    "merge_adapter",
    "parse_spatial_text",
    "refine_dataset",
]
