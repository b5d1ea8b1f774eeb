"""Facts of the model cards of merged, composed and converted models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..modeling_lyrics.adapter_checks import find_base_model
from ..utils.model_card import BaseModel, CardFacts


def describe_merge(name: str, adapter: str | os.PathLike[str], base_model: str | None = None) -> CardFacts:
    """Return the facts of an adapter that was merged into its base model.

    Args:
        name: name of the merged model.
        adapter: folder of the adapter.
        base_model: present place of the base model, by default where it was during training.
    """
    place = base_model or (find_base_model(adapter) or (None,))[0]
    origin = "An adapter was merged into its base model; it was trained as described below."
    # The Hub calls a merge what was made of several models; an adapter in its base is a fine-tuned model.
    return CardFacts(name, bases=[BaseModel.find(place)], relation="finetune", origin=origin)


def describe_composition(
    name: str, stage1: str | os.PathLike[str], language_model: str | os.PathLike[str]
) -> CardFacts:
    """Return the facts of a first stage and a language model that were joined by a new projection."""
    bases = [BaseModel.find(stage1, "first stage"), BaseModel.find(language_model, "language model")]
    origin = (
        "A first stage (vision encoder and MQ-Former) was joined with a language model. The projection between them is "
        "new and waits for the second stage."
    )
    return CardFacts(name, bases=bases, relation="merge", origin=origin, is_untrained=True)


def describe_replacement(name: str, model: str | os.PathLike[str], parts: Mapping[str, str]) -> CardFacts:
    """Return the facts of a model some of whose parts were replaced.

    Args:
        name: name of the new model.
        model: place of the model that the other parts are of.
        parts: mapping of the names of the new parts to their places.
    """
    bases = [BaseModel.find(model, "other parts"), *(BaseModel.find(place, part) for part, place in parts.items())]
    untrained = [part for part in parts if part in ("language model", "vision")]
    origin = f"Parts of a model were replaced: {', '.join(parts)}."
    if "language model" in parts:
        origin += " The projection to the language model is new and waits for the second stage."
    return CardFacts(name, bases=bases, relation="merge", origin=origin, is_untrained=bool(untrained))


def describe_conversion(name: str, source: str | os.PathLike[str]) -> CardFacts:
    """Return the facts of a checkpoint that was converted to the layout of this package."""
    origin = "The weights are those of the base model, written as safetensors in the layout of `ziya-lyrics`."
    # Of the Hub's relations this is the one of the same weights in another format or precision.
    return CardFacts(name, bases=[BaseModel.find(source)], relation="quantized", origin=origin)


def name_of_folder(folder: str | os.PathLike[str]) -> str:
    """Return the name that a model gets from its folder."""
    return Path(folder).absolute().name or "lyrics model"
