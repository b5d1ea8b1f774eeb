"""Identity of a refiner: what distinguishes it from another one, and which settings differ.

A fingerprint (`LyricsVisualRefiner.fingerprint`) covers weights and settings, but says only that something differs.
Therefore a store keeps the settings too. Both can be read from a checkpoint without loading weights.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from transformers.utils import logging

from ...modeling_lyrics.provenance_lyrics import BEHAVIOUR_VERSION, relevant_settings
from ...processing_lyrics import LyricsProcessor
from ...processing_lyrics.protocols import RefinerConfig
from .errors import StaleStoreError

logger = logging.get_logger(__name__)

MAX_DIFFERENCES = 8  # named in a message
_ABSENT = "absent"


@dataclass(frozen=True)
class RefinerIdentity:
    """Identity of a refiner.

    Attributes:
        fingerprint: str, hash of weights and settings as the refiner runs.
        saved_fingerprint: str, hash of the checkpoint that it was loaded from, which differs if it runs in another
            dtype or with other thresholds; `None` if it was never saved.
        settings: dictionary of every setting that changes a result, `dtype` included, as JSON; `None` if unknown.
        behaviour_version: int, version of the code that runs it, preprocessing included. The fingerprint of a
            checkpoint holds the version of the code that saved it.
    """

    fingerprint: str
    saved_fingerprint: str | None
    settings: dict[str, Any] | None
    behaviour_version: int = BEHAVIOUR_VERSION

    @classmethod
    def of_processor(cls, processor: LyricsProcessor) -> Self:
        """Return the identity of a processor's refiner; weights are read only if the checkpoint has no fingerprint.

        Raises:
            StaleStoreError: when the processor has no refiner and no fingerprint of one.
        """
        config = processor.refiner_config
        if config is not None and config.fingerprint is not None and not processor.refiner_loaded:
            return cls(config.fingerprint, config.fingerprint, _settings(config, config.dtype))
        if processor.has_refiner:
            refiner = processor.refiner
            settings = _settings(refiner.config, refiner.dtype)
            return cls(refiner.fingerprint(), refiner.config.fingerprint, settings)
        if processor.refiner_fingerprint is None:
            raise StaleStoreError("This processor knows of no refiner: load it from a checkpoint that has one.")
        return cls(processor.refiner_fingerprint, processor.refiner_fingerprint, None)

    def differences(self, other: RefinerIdentity) -> dict[str, tuple[Any, Any]]:
        """Return the settings that differ, with both values; `weights` if none of them does."""
        versions = self.behaviour_version, other.behaviour_version
        if versions[0] != versions[1]:
            return {"behaviour_version": versions}
        fingerprints = self.fingerprint, other.fingerprint
        if fingerprints[0] == fingerprints[1]:
            return {}
        if self.settings is None or other.settings is None:
            return {"fingerprint": fingerprints}
        return compare_settings(self.settings, other.settings) or {"weights": fingerprints}

    def require(self, other: RefinerIdentity, here: str, there: str, allowed: Collection[str] = ()) -> None:
        """Raise an error if `other` is another refiner.

        Args:
            other: identity to compare with.
            here: str, name of the place of this refiner, for the message.
            there: str, name of the place of the other refiner.
            allowed: names of settings that may differ between refiners of one checkpoint.

        Raises:
            StaleStoreError: saying what differs, with both values.
        """
        differences = self.differences(other)
        refused = {name: values for name, values in differences.items() if name not in allowed}
        if differences and not refused and self.saved_fingerprint != other.saved_fingerprint:
            refused = {"weights": (self.fingerprint, other.fingerprint)}
        if refused:
            raise StaleStoreError(f"{here} comes from another refiner than {there}. {_explain(refused, here, there)}")
        if differences:
            logger.warning_once(f"{here} comes from another refiner than {there}, as you allowed: {list(differences)}.")


def _settings(config: RefinerConfig, dtype: Any) -> dict[str, Any]:
    settings = relevant_settings(config.to_dict())
    named = {"dtype": str(dtype).removeprefix("torch."), **settings}
    return json.loads(json.dumps(named, sort_keys=True, default=str))


def compare_settings(here: Mapping[str, Any], there: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ on any level, by their dotted names, with both values."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*here, *there}):
        values = here.get(name, _ABSENT), there.get(name, _ABSENT)
        if all(isinstance(value, Mapping) for value in values):
            found |= compare_settings(*values, prefix=f"{prefix}{name}.")
        elif values[0] != values[1]:
            found[prefix + name] = values
    return found


def _explain(differences: Mapping[str, tuple[Any, Any]], here: str, there: str) -> str:
    if "fingerprint" in differences:
        return (
            f"Its fingerprint is {differences['fingerprint'][0]}, that of {there} is {differences['fingerprint'][1]}; "
            "load the processor from a folder with its refiner to see what differs."
        )
    listed = [
        f"{name}: {_shorten(values[0])} in {here}, {_shorten(values[1])} in {there}"
        for name, values in list(differences.items())[:MAX_DIFFERENCES]
    ]
    more = len(differences) - len(listed)
    return "; ".join([*listed, *([f"and {more} more"] if more else [])]) + "."


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"
