"""Loading of a first stage for retrieval, with a refiner from its own folder or from another model's."""

from __future__ import annotations

import os
from typing import Any

from transformers import AutoConfig

from ..assets.example import MICRO_CHECKPOINT, MICRO_SEARCH
from ..modeling_lyrics import LyricsForPreTraining, LyricsPreTrainingConfig
from ..serving import loading
from .encoder import PairEncoder

Place = str | os.PathLike[str]


def load_encoder(
    model: Place | None = None,
    *,
    refiner: Place | None = None,
    store: Any = None,
    device: str | None = None,
    dtype: str | None = None,
    tag_thresholds: Place | None = None,
    batch_size: int = 32,
) -> PairEncoder:
    """Load a first stage with its processor; the refiner is loaded when it is first needed.

    Args:
        model: folder or Hub id of a first stage; the micro one for search by default.
        refiner: folder or Hub id of a model whose refiner is used, where the first stage was saved without one.
        store: store of `refine_dataset` that is asked before the refiner, or its folder.
        device: device; CUDA by default where there is one.
        dtype: dtype of the weights, by default as they were saved; `"auto"` for what the device computes fast.
        tag_thresholds: file with the thresholds of the tagger, one per tag and line.
        batch_size: int, number of images, texts or pairs at a time.

    Raises:
        ValueError: there is no such model, it is no first stage, or nothing finds the objects that it reads.
        OSError: a file is missing.
    """
    place = loading.check_place(MICRO_SEARCH if model is None else model)
    chosen = loading.choose_device(device)
    kind = AutoConfig.from_pretrained(place, trust_remote_code=False).model_type
    if kind != LyricsPreTrainingConfig.model_type:
        raise ValueError(
            f"{place} is a model of type {kind!r}, and retrieval needs a first stage (lyrics_pretraining), as `lyrics "
            "pretrain` writes it. The whole model answers questions, but it has no features to search with."
        )
    first_stage: Any = LyricsForPreTraining.from_pretrained(place, dtype=loading.choose_dtype(dtype, device) or "auto")
    options: dict[str, Any] = {"device": device, "dtype": dtype, "tag_thresholds": tag_thresholds}
    processor = loading.load_processor(place, **options)
    if refiner is None and model is None:
        refiner = MICRO_CHECKPOINT
    if refiner is not None:
        processor.share_refiner_of(loading.load_processor(refiner, **options))
    if store is not None:
        processor.store = loading.open_store(store)
    return PairEncoder(first_stage.to(chosen), processor, batch_size)
