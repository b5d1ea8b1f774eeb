"""Identity of what made an index: the first stage and the refiner, and which settings of another one differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..modeling_lyrics.provenance_lyrics import BEHAVIOUR_VERSION, fingerprint, relevant_settings
from ..refinement.storage.refiner_identity import RefinerIdentity, compare_settings
from .encoder import PairEncoder

_MAX_DIFFERENCES = 5  # named in a message


def describe_encoder(encoder: PairEncoder) -> dict[str, Any]:
    """Return what the embeddings of an encoder depend on, as JSON; two are equal if their embeddings are comparable.

    All weights of the model are read.
    """
    model, processor = encoder.model, encoder.processor
    settings = relevant_settings(model.config.to_dict()) | {"dtype": str(model.dtype).removeprefix("torch.")}
    described = {
        "model": {"weights": fingerprint(model, {}), **settings},
        "image_processor": processor.image_processor.to_dict(),
        "tokenizer": _hash_tokenizer(processor.mqformer_tokenizer),
        "refiner": None,
        "behaviour_version": BEHAVIOUR_VERSION,
    }
    if encoder.reads_objects:
        described["refiner"] = _describe_refiner(encoder)
    return json.loads(json.dumps(described, sort_keys=True, default=str))


def _describe_refiner(encoder: PairEncoder) -> dict[str, Any]:
    """Return fingerprint and settings of the refiner, or of the one that filled the store."""
    processor = encoder.processor
    if processor.refiner_config is None and hasattr(processor.store, "manifest"):
        store: Any = processor.store
        identity = store.manifest.refiner
    else:
        identity = RefinerIdentity.of_processor(processor)
    return {"fingerprint": identity.fingerprint, **(identity.settings or {})}


def _hash_tokenizer(tokenizer: Any) -> str:
    """Return the SHA-256 of a tokenizer, without the truncation and padding of its last call, which it keeps."""
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    settings = {name: value for name, value in settings.items() if name not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def explain_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return which settings differ, with both values, or `None` if none does.

    Fingerprints of weights are named only where no setting explains them.
    """
    differences = compare_settings(then, now)
    hashes = {name for name in differences if name.endswith((".weights", ".fingerprint", "tokenizer"))}
    named = [name for name in differences if name not in hashes] or sorted(hashes)
    if not named:
        return None
    listed = [f"{name} was {_short(differences[name][0])} and is {_short(differences[name][1])}" for name in named]
    more = len(listed) - _MAX_DIFFERENCES
    return "; ".join([*listed[:_MAX_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])])


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
