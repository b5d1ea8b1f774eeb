"""Image processor of a foreign vision encoder."""

from __future__ import annotations

import os
from typing import Any

from transformers import AutoImageProcessor, PreTrainedConfig
from transformers.utils import logging

from ..processing_lyrics import LyricsImageProcessor

logger = logging.get_logger(__name__)


def build_image_processor(vision_model: str | os.PathLike[str] | None, vision_config: PreTrainedConfig) -> Any:
    """Build an image processor with the size and the normalization of a vision encoder.

    Args:
        vision_model: folder or Hub id of the vision encoder, or `None` for a new one.
        vision_config: its configuration.

    Raises:
        ValueError: the vision encoder takes images of any size, as those of NaFlex do.
    """
    side: Any = getattr(vision_config, "image_size", None)
    if side is None:
        raise ValueError(
            f"A {vision_config.model_type} has no fixed image_size; Lyrics reads images of one size. Choose a vision "
            "encoder with one, such as a fixed-resolution SigLIP 2."
        )
    height, width = side if isinstance(side, list | tuple) else (side, side)
    settings: dict[str, Any] = {"size": {"height": height, "width": width}}
    if vision_model is not None:
        try:
            own: Any = AutoImageProcessor.from_pretrained(vision_model, trust_remote_code=False)
        except OSError:
            logger.warning("%s has no image processor: CLIP's normalization is used.", vision_model)
        else:
            settings |= {"image_mean": own.image_mean, "image_std": own.image_std, "resample": own.resample}
    return LyricsImageProcessor(**settings)
