"""Checks of an adapter against the model that it is loaded into.

An adapter's folder holds `lyrics_adapter.json` beside PEFT's files: the parts that were trained with it, and a mark of
its base model. Loading the adapter checks both, so that a missing connector or another base model is an error instead
of a bad answer.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers.utils.hub import cached_file

from .checkpoint_files import naming, read_object

ADAPTER_FILE = "lyrics_adapter.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_TUNED = (".lora_", ".modules_to_save.")  # marks of weights that an adapter added
_SAMPLE_SIZE = 64  # values of each weight
_SHOWN_KEYS = 5  # of those that are missing or unexpected
_OPTIONAL = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}


def mark_base(model: nn.Module) -> str:
    """Return a mark of a base model: a hash of names, shapes and sampled values of its weights.

    Weights that an adapter or a quantizer may change are left out, so that the mark of an adapted model equals that of
    its base. Values are compared as bfloat16, so that the dtype does not matter. It takes milliseconds for any model
    size.
    """
    digest = hashlib.sha256()
    weights = dict(model.named_parameters())
    tuned = tuple(f"{name.split('.base_layer.')[0]}." for name in weights if ".base_layer." in name)
    base = [name for name in weights if not name.startswith(tuned) or ".base_layer." in name]
    for name, weight in sorted((_plain_name(name), weights[name]) for name in base):
        is_language = ".language_model." in f".{name}" or name.startswith("lm_head")
        may_be_quantized = is_language and weight.dim() > 1 and "embed" not in name
        if may_be_quantized or any(mark in f".{name}" for mark in _TUNED):
            continue
        flat = weight.detach().flatten()
        values = flat[:: max(1, len(flat) // _SAMPLE_SIZE)][:_SAMPLE_SIZE].to("cpu", torch.bfloat16)
        digest.update(f"{name} {tuple(weight.shape)}".encode() + values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _plain_name(name: str) -> str:
    """Return the name that a weight has in the model without adapters."""
    name = name.removeprefix("base_model.model.")
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")


def write_adapter_file(folder: str | os.PathLike[str], details: dict[str, Any]) -> None:
    """Write `lyrics_adapter.json`.

    Args:
        folder: folder of the adapter.
        details: content of the file; `base_mark`, `base_model` and `trained_parts` are required.
    """
    (Path(folder) / ADAPTER_FILE).write_text(json.dumps(details, indent=1, sort_keys=True, default=str))


def check_adapter(model: nn.Module, adapter: str | os.PathLike[str], **hub_kwargs: Any) -> None:
    """Check that an adapter is complete and was trained on this model.

    An adapter without `lyrics_adapter.json` passes.

    Args:
        model: model that receives the adapter.
        adapter: folder or Hub id of the adapter.
        hub_kwargs: arguments of `from_pretrained` that say where files come from (`revision`, `token`, ...).

    Raises:
        ValueError: the adapter lacks a trained part, or has another base model.
    """
    file = cached_file(adapter, ADAPTER_FILE, **_OPTIONAL, **hub_kwargs)
    if file is None:
        return
    details = _read_details(file)
    weights = cached_file(adapter, ADAPTER_WEIGHTS, **_OPTIONAL, **hub_kwargs)
    names: list[str] = []
    if weights is not None:
        with naming(weights), safe_open(weights, framework="pt") as opened:
            names = list(opened.keys())
    for part in details["trained_parts"]:
        if not any(f".{part}." in name for name in names):
            raise ValueError(
                f"The adapter {os.fspath(adapter)} lacks its {part}, which was trained with it: {ADAPTER_WEIGHTS} has "
                "no weight of it. Copy the whole directory, or save it again."
            )
    if details["base_mark"] != mark_base(model):
        raise ValueError(
            f"The adapter {os.fspath(adapter)} was trained on {details['base_model']!r}, and this model has other "
            "weights: load the adapter's own base model."
        )


def check_adapter_keys(
    adapter: str | os.PathLike[str] | None, missing: Collection[str], unexpected: Collection[str]
) -> None:
    """Raise a `ValueError` that names the first keys, if an adapter lacks weights or holds weights without a place."""
    if not missing and not unexpected:
        return
    details = []
    for kind, keys in (("is missing", sorted(missing)), ("has no place in the model", sorted(unexpected))):
        if keys:
            details.append(f"{', '.join(keys[:_SHOWN_KEYS])}{', ...' * (len(keys) > _SHOWN_KEYS)} {kind}")
    place = "in memory" if adapter is None else os.fspath(adapter)
    raise ValueError(f"The adapter {place} does not fit its configuration: {'; '.join(details)}. Copy it again.")


def check_no_learned_prompt(module: str) -> None:
    """Refuse prompt tuning, prefix tuning and their kin, which PEFT builds around a model without calling it.

    PEFT looks up the embedding of every token of a prompt, which the placeholder need not have, and then passes no ids
    that would say where images belong. In generation PEFT 0.21 does not know the argument `cache` of Transformers 5.24,
    so that tokens are wrong for any model, without a word.

    Args:
        module: name of a module that the model was asked for. PEFT asks for BERT's word embeddings first.

    Raises:
        ValueError: only PEFT's learned prompts ask for this module.
    """
    if module == "embeddings.word_embeddings":
        raise ValueError(
            "Lyrics does not support PEFT's learned prompts (prompt tuning, prefix tuning, P-tuning, CPT): they do not "
            "work with images, nor with the cache of Transformers 5.24. Use LoRA or another adapter instead."
        )


def find_base_model(adapter: str | os.PathLike[str], **hub_kwargs: Any) -> tuple[str, str] | None:
    """Return the place and the revision of an adapter's base model, or `None` if there is no adapter.

    Args:
        adapter: folder or Hub id.
        hub_kwargs: arguments of `from_pretrained` that say where files come from (`revision`, `token`, ...).

    Raises:
        ValueError: the base model existed in memory only.
    """
    file = cached_file(adapter, "adapter_config.json", **_OPTIONAL, **hub_kwargs)
    if file is None:
        return None
    settings = read_object(file)
    place = settings.get("base_model_name_or_path")
    if (details := cached_file(adapter, ADAPTER_FILE, **_OPTIONAL, **hub_kwargs)) is not None:
        place = _read_details(details)["base_model"]
    if not place:
        raise ValueError(
            f"{os.fspath(adapter)} was trained on a model in memory: say where that model was saved, as the base model."
        )
    if not isinstance(place, str):
        raise ValueError(f"{file!r} is damaged: base_model_name_or_path must be a name, got {place!r:.100}.")
    return place, settings.get("revision") or "main"


def _read_details(file: str) -> dict[str, Any]:
    """Return the content of `lyrics_adapter.json`; raise a `ValueError` that names the file where it is damaged."""
    details = read_object(file)
    parts, base = details.get("trained_parts"), details.get("base_model", 0)
    is_sound = isinstance(parts, list) and all(isinstance(part, str) for part in parts)
    if not is_sound or not isinstance(details.get("base_mark"), str) or not isinstance(base, str | None):
        raise ValueError(f"{file!r} is damaged: base_mark, base_model or trained_parts is missing or of another type.")
    return details


def load_peft_model(
    model: nn.Module,
    adapter: str | os.PathLike[str],
    config: Any = None,
    is_trainable: bool = False,
    **hub_kwargs: Any,
) -> Any:
    """Load an adapter with PEFT, and check that it is complete and was trained on this model.

    Args:
        model: base model, changed in place.
        adapter: folder or Hub id of the adapter.
        config: PEFT configuration; by default the saved one.
        is_trainable: bool, whether the adapter will be trained further.
        hub_kwargs: arguments of `from_pretrained` that say where files come from (`revision`, `token`, ...).

    Raises:
        ValueError: a weight of the adapter is missing or unexpected, or the adapter has another base model.
    """
    check_adapter(model, adapter, **hub_kwargs)
    place, options = os.fspath(adapter), {"is_trainable": is_trainable, **hub_kwargs}
    try:
        tuned: Any = import_module("peft").PeftModel.from_pretrained(model, place, config=config, **options)
        result = tuned.load_adapter(place, "default", **options)  # again, since only this method says what was missing
    except KeyError as error:  # a weight of a part that is trained in full
        check_adapter_keys(adapter, [str(error.args[0])], [])
        raise
    check_adapter_keys(adapter, result.missing_keys, result.unexpected_keys)
    return tuned


def reload_with_peft(model: nn.Module, adapter: str | os.PathLike[str], name: str, **hub_kwargs: Any) -> None:
    """Load the weights of an adapter that was injected into a model a second time, with PEFT's own names.

    Transformers' loading does not find the magnitudes of DoRA.

    Args:
        model: model with the adapter, but without `PeftModel`.
        adapter: folder or Hub id of the adapter.
        name: name of the adapter in the model.
        hub_kwargs: arguments of `from_pretrained` that say where files come from (`revision`, `token`, ...).

    Raises:
        ValueError: a weight of the adapter is missing or unexpected.
    """
    peft: Any = import_module("peft")
    device = str(next(model.parameters()).device)
    weights = peft.load_peft_weights(os.fspath(adapter), device=device, **hub_kwargs)
    weights = {key.removeprefix("base_model.model."): tensor for key, tensor in weights.items()}
    expected = peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).keys()
    check_adapter_keys(adapter, expected - weights.keys(), weights.keys() - expected)
    peft.set_peft_model_state_dict(model, weights, name)
