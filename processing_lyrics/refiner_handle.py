"""Handle on a processor's refiner: its source and, once it was used, its weights.

Processors are often copied, printed, hashed and pickled. Copies share the handle, and a pickle never contains weights.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModel

from .processor_checks import HUB_KWARGS, find_adapter_base, find_file, is_published, pin_revision
from .protocols import ObjectStore, Refiner, RefinerConfig
from .refined_cache import RefinedCache

REFINER_FOLDER = "refiner"
REFINER_TYPE = "lyrics_refiner"
_OF_WEIGHTS = ("dtype", "device_map", "trust_remote_code")  # arguments of `from_pretrained` that no configuration takes

# One refiner is loaded at a time in a process: threads that share a processor get the same one.
_LOADING = threading.RLock()

_WRITTEN_WHEN_SAVED = frozenset(("_name_or_path", "architectures", "dtype", "fingerprint", "transformers_version"))


class RefinerHandle:
    """Loads a refiner on first use.

    Args:
        source: folder or Hub id of a checkpoint, or `None`.
        subfolder: folder of the refiner inside the checkpoint.
        load_kwargs: dictionary of arguments of `from_pretrained`.
        is_published: whether the checkpoint is in the published layout, which keeps the refiner's weights among the
            model's.

    Attributes:
        source: folder or Hub id, or `None` when there is none or only a refiner in memory.
        subfolder: folder inside the source.
        place: folder where the refiner is or was looked for, or `None`.
        recorded: fingerprint that the processor records of its refiner, or `None`.
        load_kwargs: dictionary of arguments of `from_pretrained` (`dtype`, `device_map`, `tag_thresholds`, Hub
            arguments).
        device, dtype: device and dtype that the refiner gets when it is loaded.
        skipped: whether the refiner at the source must not be used.
        store: store of visual objects that is asked before the refiner, or `None`.
        cache: `RefinedCache` of what the refiner found.
    """

    def __init__(
        self,
        source: str | None = None,
        subfolder: str = "",
        load_kwargs: dict[str, Any] | None = None,
        is_published: bool = False,
    ) -> None:
        self.source = source
        self.subfolder = subfolder
        self.is_published = is_published
        self.place = None if source is None else os.path.join(source, subfolder)
        self.recorded: str | None = None
        self.load_kwargs = dict(load_kwargs or {})
        self.device: torch.device | str | None = None
        self.dtype: torch.dtype | None = None
        self.skipped = False
        self.store: ObjectStore | None = None
        self.cache = RefinedCache()
        self._module: Refiner | None = None
        self._is_attached = False
        self._loaded_state: Any = None

    @classmethod
    def find(
        cls, checkpoint: str | os.PathLike[str], load_kwargs: dict[str, Any], subfolder: str = ""
    ) -> RefinerHandle:
        """Return a handle on the refiner of a checkpoint; an empty one where the checkpoint has none.

        An adapter is saved without a refiner and has that of its base model.

        Args:
            checkpoint: folder or Hub id.
            load_kwargs: dictionary of arguments of `from_pretrained`.
            subfolder: folder of the processor inside the checkpoint.
        """
        hub_kwargs = {name: load_kwargs[name] for name in HUB_KWARGS if name in load_kwargs}
        folder = os.path.join(subfolder, REFINER_FOLDER)
        handle = cls(os.fspath(checkpoint), folder, load_kwargs)
        if find_file(checkpoint, "config.json", subfolder=folder, **hub_kwargs) is None:
            handle.source = None
            base = find_adapter_base(checkpoint, subfolder=subfolder, **hub_kwargs)
            if base is not None:
                with suppress(OSError):  # the base model may have moved; whoever needs objects is told
                    return cls._find_in_base(*base, load_kwargs)
        return handle

    @classmethod
    def _find_in_base(cls, base: str, revision: str, load_kwargs: dict[str, Any]) -> RefinerHandle:
        """Return a handle on the refiner of an adapter's base model, which may be in the published layout."""
        load_kwargs = load_kwargs | {"revision": revision}
        pin_revision(base, load_kwargs)
        if is_published(base, **{name: load_kwargs[name] for name in HUB_KWARGS if name in load_kwargs}):
            return cls(base, "", load_kwargs, is_published=True)
        return cls.find(base, load_kwargs)

    @property
    def exists(self) -> bool:
        """Whether there is a refiner, loaded or not."""
        return self._module is not None or (self.source is not None and not self.skipped)

    @property
    def loaded(self) -> bool:
        """Whether the refiner's weights are in memory."""
        return self._module is not None

    def attach(self, module: Refiner) -> None:
        """Use a refiner that is in memory."""
        self.cache.clear()
        self._module = module
        self._is_attached = True

    def get(self) -> Refiner:
        """Return the refiner, and load it on the first call.

        Raises:
            ValueError: there is no refiner, or its files are damaged.
        """
        if self._module is None:
            with _LOADING:
                if self._module is None:  # another thread may have loaded it meanwhile
                    module = self._load_checked()
                    self._place(module)
                    self._loaded_state = _state_of(module)
                    self._module = module
        return self._module

    def _load_checked(self) -> Refiner:
        """Load the refiner from the source, and compare it with the recorded one.

        Raises:
            ValueError: there is no refiner, its files are damaged, or the processor was saved with another one.
        """
        if self.source is None or self.skipped:
            where = f": there is none in {self.place}" if self.place and not self.skipped else ""
            raise ValueError(
                f"This processor has no refiner{where}. Load it with one (`refiner=False` skips it), give it one by "
                "`processor.attach_refiner(model)`, or pass `visual_objects`."
            )
        try:
            module = self._load(self.source)
        except (OSError, ValueError):
            raise
        except Exception as error:
            raise ValueError(
                f"The refiner in {self.place} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        found = module.config.fingerprint
        if found is not None and self.recorded is not None and found != self.recorded:
            raise ValueError(
                f"The refiner in {self.place} has the fingerprint {found}, but this processor was saved with "
                f"{self.recorded}: it belongs to another model. Restore it, or give the processor this one by "
                "`processor.attach_refiner(model)`."
            )
        return module

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Set device and dtype, now and for a refiner that is loaded later."""
        with _LOADING:
            self.device = device if device is not None else self.device
            self.dtype = dtype if dtype is not None else self.dtype
            if self._module is not None:
                unchanged = not self._is_attached and self._is_as_loaded()
                self._place(self._module)
                self._loaded_state = _state_of(self._module) if unchanged else None

    def _place(self, module: Refiner) -> None:
        """Move a refiner to the chosen device and dtype."""
        self.cache.clear()
        if self.device is not None or self.dtype is not None:
            module.to(device=self.device, dtype=self.dtype)

    def config(self) -> RefinerConfig | None:
        """Return the refiner's configuration, read without its weights; `None` where there is none.

        It has the dtype that the weights will get. Its fingerprint is `None` where that dtype, or any other setting,
        differs from the saved one.
        """
        if self._module is not None or self.source is None:
            return getattr(self._module, "config", None)
        config, dtype = self._load_config(self.source), self.dtype or self.load_kwargs.get("dtype", "auto")
        dtype = getattr(torch, dtype, config.dtype) if isinstance(dtype, str) else dtype  # "auto" is as saved
        given = self.load_kwargs.keys() - {"dtype"}
        if dtype != config.dtype or "tag_thresholds" in given or given & config.to_dict().keys():
            config.dtype, config.fingerprint = dtype, None
        return config

    def _load_config(self, source: str) -> Any:
        """Read the configuration of the refiner at the source."""
        config_kwargs = {name: value for name, value in self.load_kwargs.items() if name not in _OF_WEIGHTS}
        return CONFIG_MAPPING[REFINER_TYPE].from_pretrained(source, subfolder=self.subfolder, **config_kwargs)

    def _load(self, source: str) -> Refiner:
        """Load the refiner from the source."""
        if not self.is_published:
            return AutoModel.from_pretrained(source, subfolder=self.subfolder, **self.load_kwargs)
        # the refiner's weights are among the model's: the configuration says what to take, and has its own arguments
        config = self._load_config(source)
        of_config = {"tag_thresholds", *config.to_dict()} - set(_OF_WEIGHTS)
        load_kwargs = {name: value for name, value in self.load_kwargs.items() if name not in of_config}
        return AutoModel.from_pretrained(source, config=config, subfolder=self.subfolder, **load_kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> RefinerHandle:
        """Return the handle itself, so that copies of a processor share the weights."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without weights; refuse a refiner that cannot be loaded again from the source."""
        if self._module is not None and (self._is_attached or not self._is_as_loaded()):
            how = "an attached refiner" if self._is_attached else "a refiner that was changed after it was loaded"
            raise ValueError(
                f"A processor with {how} cannot be pickled, since the weights would go with it. Save it with "
                "`save_pretrained` and load it from there, or attach the refiner in the other process."
            )
        return self.__dict__ | {"_module": None, "_loaded_state": None}

    def _is_as_loaded(self) -> bool:
        """Return whether weights and settings are those that were loaded."""
        return _state_of(self._module) == self._loaded_state


def _state_of(module: Any) -> tuple[str, dict[str, Any]]:
    """Return settings and checksums of a refiner, which change with it; a fingerprint would take much longer."""
    settings = json.dumps(_without_written(module.config.to_dict()), sort_keys=True, default=str)
    return settings, {name: _checksum(tensor) for name, tensor in module.state_dict().items()}


def _without_written(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without those that saving writes into a configuration, on every level."""
    return {
        name: _without_written(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if name not in _WRITTEN_WHEN_SAVED
    }


def _checksum(tensor: torch.Tensor) -> tuple[torch.dtype, int | None]:
    """Return dtype and sum of the bits of a tensor; `None` where it is on the disk."""
    if tensor.device.type == "meta":
        return tensor.dtype, None
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = tensor.detach().contiguous().view(integers[tensor.element_size()])
    return tensor.dtype, int(bits.sum(dtype=torch.int64))
