"""Which refiner saw a picture: what tells it from another, and what exactly differs.

A fingerprint (`LyricsVisualRefiner.fingerprint`) covers weights and settings, but says only that something differs. So
a store keeps the settings too. Of a checkpoint both can be read without loading any weights.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from transformers.utils import logging

from ...modeling_lyrics.provenance_lyrics import BEHAVIOUR_VERSION, relevant_settings
from ...processing_lyrics import LyricsProcessor
from .errors import StaleStoreError

logger = logging.get_logger(__name__)

MAX_DIFFERENCES = 8  # named in a message
_ABSENT = "absent"


@dataclass(frozen=True)
class RefinerIdentity:
    """What tells a refiner from another.

    Attributes:
        fingerprint: of weights and settings, as it runs.
        saved_fingerprint: of the checkpoint that it was loaded from: another one, if it runs in another dtype or with
            other thresholds. `None` where it was never saved.
        settings: every setting that changes what it sees, `dtype` included, as JSON has them; `None` where they are
            not known.
        behaviour_version: of the code that runs it, preprocessing included. A checkpoint's fingerprint holds that of
            the code that saved it.
    """

    fingerprint: str
    saved_fingerprint: str | None
    settings: dict[str, Any] | None
    behaviour_version: int = BEHAVIOUR_VERSION

    @classmethod
    def of_processor(cls, processor: LyricsProcessor) -> Self:
        """The identity of a processor's refiner; weights are read only where its checkpoint does not say.

        Raises:
            StaleStoreError: when the processor has no refiner and does not know which one it belongs to.
        """
        config = processor.refiner_config
        if config is not None and config.fingerprint is not None and not processor.refiner_loaded:
            return cls(config.fingerprint, config.fingerprint, _settings(config, config.dtype))
        if processor.has_refiner:
            return cls.of_refiner(processor.refiner)
        if processor.refiner_fingerprint is None:
            raise StaleStoreError("This processor knows of no refiner: load it from a checkpoint that has one.")
        return cls(processor.refiner_fingerprint, processor.refiner_fingerprint, None)

    @classmethod
    def of_refiner(cls, refiner: Any) -> Self:
        """The identity of a `LyricsVisualRefiner`; all its weights are read."""
        return cls(refiner.fingerprint(), refiner.config.fingerprint, _settings(refiner.config, refiner.dtype))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def differences(self, other: RefinerIdentity) -> dict[str, tuple[Any, Any]]:
        """What differs, by the name of the setting, with the value here and there; `weights` where no setting does."""
        versions = self.behaviour_version, other.behaviour_version
        if versions[0] != versions[1]:
            return {"behaviour_version": versions}
        fingerprints = self.fingerprint, other.fingerprint
        if fingerprints[0] == fingerprints[1]:
            return {}
        if self.settings is None or other.settings is None:
            return {"fingerprint": fingerprints}
        return _compare(self.settings, other.settings) or {"weights": fingerprints}

    def require(self, other: RefinerIdentity, here: str, there: str, allowed: Collection[str] = ()) -> None:
        """Refuse another refiner.

        Args:
            here, there: what the two refiners are called in the message.
            allowed: names of settings that may differ, for refiners that come from one checkpoint.

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


def _settings(config: Any, dtype: Any) -> dict[str, Any]:
    settings = relevant_settings(config.to_dict())
    named = {"dtype": str(dtype).removeprefix("torch."), **settings}
    return json.loads(json.dumps(named, sort_keys=True, default=str))


def _compare(here: Mapping[str, Any], there: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*here, *there}):
        values = here.get(name, _ABSENT), there.get(name, _ABSENT)
        if all(isinstance(value, Mapping) for value in values):
            found |= _compare(*values, prefix=f"{prefix}{name}.")
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
