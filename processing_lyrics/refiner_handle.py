"""Handle on a processor's refiner: its source and, once it was used, its weights.

Processors are often copied, printed, hashed and pickled. Copies share the handle, and a pickle never contains weights.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModel

from .processor_checks import HUB_KWARGS, find_file
from .protocols import ObjectStore, Refiner, RefinerConfig

REFINER_FOLDER = "refiner"
REFINER_TYPE = "lyrics_refiner"
_OF_WEIGHTS = ("dtype", "device_map", "trust_remote_code")  # arguments of `from_pretrained` that no configuration takes


class RefinerHandle:
    """Loads a refiner on first use.

    Args:
        source: folder or Hub id of a checkpoint, or `None`.
        subfolder: folder of the refiner inside the checkpoint.
        load_kwargs: dictionary of arguments of `from_pretrained`.

    Attributes:
        source: folder or Hub id, or `None` when there is none or only a refiner in memory.
        subfolder: folder inside the source.
        load_kwargs: dictionary of arguments of `from_pretrained` (`dtype`, `device_map`, `tag_thresholds`, Hub
            arguments).
        device, dtype: device and dtype that the refiner gets when it is loaded.
        skipped: whether the refiner at the source must not be used.
        store: store of visual objects that is asked before the refiner, or `None`.
    """

    def __init__(
        self, source: str | None = None, subfolder: str = "", load_kwargs: dict[str, Any] | None = None
    ) -> None:
        self.source = source
        self.subfolder = subfolder
        self.load_kwargs = dict(load_kwargs or {})
        self.device: torch.device | str | None = None
        self.dtype: torch.dtype | None = None
        self.skipped = False
        self.store: ObjectStore | None = None
        self._module: Refiner | None = None

    @classmethod
    def find(cls, checkpoint: str | os.PathLike[str], load_kwargs: dict[str, Any]) -> RefinerHandle:
        """Return a handle on the refiner of a checkpoint; an empty one where the checkpoint has none."""
        hub_kwargs = {name: load_kwargs[name] for name in HUB_KWARGS if name in load_kwargs}
        found = find_file(checkpoint, "config.json", subfolder=REFINER_FOLDER, **hub_kwargs)
        return cls() if found is None else cls(os.fspath(checkpoint), REFINER_FOLDER, load_kwargs)

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
        self._module = module

    def get(self) -> Refiner:
        """Return the refiner, and load it on the first call.

        Raises:
            ValueError: there is no refiner, or its files are damaged.
        """
        if self._module is None:
            if self.source is None or self.skipped:
                raise ValueError(
                    "This processor has no refiner. Load it with one (`refiner=False` skips it), give it one by "
                    "`processor.attach_refiner(model)`, or pass `visual_objects`."
                )
            try:
                self._module = self._load(self.source)
            except (OSError, ValueError):
                raise
            except Exception as error:
                place = os.path.join(self.source, self.subfolder)
                raise ValueError(f"The refiner in {place} cannot be loaded: {type(error).__name__}: {error}") from error
            self._place(self._module)
        return self._module

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Set device and dtype, now and for a refiner that is loaded later."""
        self.device = device if device is not None else self.device
        self.dtype = dtype if dtype is not None else self.dtype
        if self._module is not None:
            self._place(self._module)

    def _place(self, module: Refiner) -> None:
        """Move a refiner to the chosen device and dtype."""
        if self.device is not None or self.dtype is not None:
            module.to(device=self.device, dtype=self.dtype)

    def config(self) -> RefinerConfig | None:
        """Return the refiner's configuration, read without its weights; `None` where there is none.

        It has the dtype that the weights will get. Its fingerprint is `None` where that dtype, or the thresholds,
        differ from the saved ones.
        """
        if self._module is not None or self.source is None:
            return getattr(self._module, "config", None)
        config, dtype = self._load_config(self.source), self.dtype or self.load_kwargs.get("dtype", "auto")
        dtype = getattr(torch, dtype, config.dtype) if isinstance(dtype, str) else dtype  # "auto" is as saved
        if dtype != config.dtype or "tag_thresholds" in self.load_kwargs:
            config.dtype, config.fingerprint = dtype, None
        return config

    def _load_config(self, source: str) -> Any:
        """Read the configuration of the refiner at the source."""
        config_kwargs = {name: value for name, value in self.load_kwargs.items() if name not in _OF_WEIGHTS}
        return CONFIG_MAPPING[REFINER_TYPE].from_pretrained(source, subfolder=self.subfolder, **config_kwargs)

    def _load(self, source: str) -> Refiner:
        """Load the refiner from the source."""
        if self.subfolder:
            return AutoModel.from_pretrained(source, subfolder=self.subfolder, **self.load_kwargs)
        # the published layout has the refiner's weights among the model's: the configuration says what to take
        load_kwargs = {name: value for name, value in self.load_kwargs.items() if name != "tag_thresholds"}
        return AutoModel.from_pretrained(source, config=self._load_config(source), **load_kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> RefinerHandle:
        """Return the handle itself, so that copies of a processor share the weights."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without weights; refuse a refiner that exists in memory only."""
        if self._module is not None and self.source is None:
            raise ValueError(
                "A processor with an attached refiner cannot be pickled, since the weights would go with it. Save it "
                "with `save_pretrained` and load it from there, or attach the refiner in the other process."
            )
        return self.__dict__ | {"_module": None}
