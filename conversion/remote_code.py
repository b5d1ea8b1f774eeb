"""Remote code: the modules beside the weights, so that a machine without this package runs the model.

Transformers finds a class by the `auto_map` of a configuration, and its module in the root of the checkpoint, also for
the refiner in its subfolder. Modules of both packages lie there side by side, which is why they are flat.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

from ..utils.published_files import rewrite_json

_PACKAGE = Path(__file__).resolve().parents[1]
_MODULES = ("modeling_lyrics", "processing_lyrics")  # folders of the package

_MODEL = "modeling_lyrics.LyricsForConditionalGeneration"
_AUTO_MAPS: dict[str, dict[str, Any]] = {  # model_type -> auto class -> module and class
    "lyrics": {
        "AutoConfig": "configuration_lyrics.LyricsConfig",
        "AutoModel": "modeling_lyrics.LyricsModel",
        "AutoModelForImageTextToText": _MODEL,
        "AutoModelForMultimodalLM": _MODEL,
    },
    "lyrics_pretraining": {
        "AutoConfig": "configuration_lyrics_pretraining.LyricsPreTrainingConfig",
        "AutoModelForPreTraining": "modeling_lyrics_pretraining.LyricsForPreTraining",
        "AutoModelForZeroShotImageClassification": "modeling_lyrics_retrieval.LyricsForImageTextRetrieval",
    },
    "lyrics_refiner": {
        "AutoConfig": "configuration_lyrics.LyricsRefinerConfig",
        "AutoModel": "modeling_refiner.LyricsVisualRefiner",
    },
}
_PROCESSOR = {"AutoProcessor": "processing_lyrics.LyricsProcessor"}
_IMAGE_PROCESSOR = {
    "AutoImageProcessor": [  # without torchvision, and with it
        "image_processing_lyrics.LyricsImageProcessorPil",
        "image_processing_lyrics.LyricsImageProcessorTorchvision",
    ]
}


def add_remote_code(folder: Path) -> None:
    """Copy the modules into a model's folder, and name them in its configurations.

    Args:
        folder: folder of a model with its processor, and a refiner or none.

    Raises:
        ValueError: the folder is that of an adapter, whose code is that of its base model.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(
            "An adapter has no code of its own, since its base model is loaded first: export the base model, or the "
            "merged one (`lyrics merge`), with its code."
        )
    kind = json.loads(config.read_text(encoding="utf-8"))["model_type"]
    classes = [*_AUTO_MAPS[kind].values()]
    rewrite_json(config, auto_map=_AUTO_MAPS[kind] | _PROCESSOR)
    processor = folder / "processor_config.json"
    if processor.is_file():
        image_processor = json.loads(processor.read_text(encoding="utf-8")).get("image_processor", {})
        image_processor |= {"auto_map": _IMAGE_PROCESSOR}
        rewrite_json(processor, auto_map=_PROCESSOR, image_processor=image_processor)
        # a first stage is saved without its refiner, which the processor can still be given
        classes += [
            *_PROCESSOR.values(),
            *_IMAGE_PROCESSOR["AutoImageProcessor"],
            *_AUTO_MAPS["lyrics_refiner"].values(),
        ]
    refiner = folder / "refiner" / "config.json"
    if refiner.is_file():
        rewrite_json(refiner, auto_map=_AUTO_MAPS["lyrics_refiner"])
    for file in find_modules({name.partition(".")[0] for name in classes}):
        shutil.copyfile(file, folder / file.name)


def has_remote_code(folder: Path) -> bool:
    """Return whether the configuration of a model's folder names modules beside it."""
    config = folder / "config.json"
    return config.is_file() and "auto_map" in json.loads(config.read_text(encoding="utf-8"))


def module_names() -> list[str]:
    """Return the names of all files that may lie beside a model's weights as its code."""
    return sorted(file.name for package in _MODULES for file in (_PACKAGE / package).glob("[!_]*.py"))


def find_modules(names: set[str]) -> list[Path]:
    """Return the files of modules, and of all that they import.

    Args:
        names: names of modules of `modeling_lyrics` and `processing_lyrics`.
    """
    roots = [_PACKAGE / package / f"{name}.py" for package in _MODULES for name in names]
    roots = [root for root in roots if root.is_file()]
    files = {str(root) for root in roots}.union(*(get_relative_import_files(root) for root in roots))
    return sorted(map(Path, files))
