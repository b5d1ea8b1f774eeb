"""Checkpoint of the refiner: its fingerprint, which tells whether files were changed, and the detector's tokenizer."""

from __future__ import annotations

import os
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from .checkpoint_files import find_file, read_object
from .configuration_lyrics import LyricsRefinerConfig
from .provenance_lyrics import fingerprint, has_new_settings, relevant_settings
from .published_checkpoint import find_tokenizer_folder

logger = logging.get_logger(__name__)


def check_fingerprint(refiner: Any, checkpoint: str | os.PathLike[str], hub_kwargs: dict[str, Any]) -> None:
    """Raise a `ValueError` where the loaded weights are not those whose fingerprint the checkpoint records.

    It cannot be told of weights in another dtype than the saved one, on the disk, or quantized.
    """
    path = find_file(checkpoint, "config.json", **hub_kwargs)
    saved = {} if path is None else read_object(path)
    recorded = saved.get("fingerprint")
    if recorded is None or str(refiner.dtype).removeprefix("torch.") != saved.get("dtype"):
        return
    if refiner.device.type == "meta" or hasattr(refiner, "hf_device_map") or getattr(refiner, "hf_quantizer", None):
        return
    settings = used_settings(LyricsRefinerConfig.from_dict(dict(saved)))  # without what the caller changed
    if (found := fingerprint_with(refiner, settings)) == recorded:
        return
    place = os.path.dirname(str(path))
    message = (
        f"The refiner in {place} has the fingerprint {found}, but {recorded} is recorded in its config.json: "
        "weights, settings or tokenizer were changed after they were saved together."
    )
    if has_new_settings(settings, saved):
        logger.warning_once(f"{message} Or it is since this release of Transformers has further settings.")
        return
    raise ValueError(
        f"{message} Restore the files. If the change is meant, remove `fingerprint` from that file, and "
        "`refiner_fingerprint` from the processor_config.json beside its folder."
    )


def fingerprint_with(refiner: Any, settings: dict[str, Any]) -> str:
    """Return the fingerprint that the refiner has with other settings."""
    vocabulary = None if refiner.tokenizer is None else sorted(refiner.tokenizer.get_vocab().items())
    return fingerprint(refiner, {"config": relevant_settings(settings), "vocabulary": vocabulary})


def used_settings(config: LyricsRefinerConfig) -> dict[str, Any]:
    """Return the settings that objects depend on.

    What is newer than saved fingerprints is missing by default: tiles, and what resizes.
    """
    settings = config.to_dict()
    del settings["familiar_score"]
    if config.tile_aspect_ratio is None:
        del settings["tile_aspect_ratio"], settings["tile_overlap"]
    if config.resize_backend == "pil":
        del settings["resize_backend"]
    return settings


def load_tokenizer(
    checkpoint: str | os.PathLike[str], hub_kwargs: dict[str, Any], trusted: dict[str, Any]
) -> PreTrainedTokenizerBase:
    """Load the detector's tokenizer; an error names its damaged file."""
    folder = find_tokenizer_folder(checkpoint, **hub_kwargs)
    in_folder: Any = hub_kwargs | {"subfolder": folder}
    try:
        return AutoTokenizer.from_pretrained(checkpoint, **in_folder, **trusted)
    except Exception as error:
        for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
            if (path := find_file(checkpoint, name, **in_folder)) is not None:
                read_object(path)
        place = os.path.join(checkpoint, folder)
        raise ValueError(f"The detector's tokenizer in {place} cannot be read: {error!r}") from error
