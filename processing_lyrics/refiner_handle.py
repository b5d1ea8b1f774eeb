"""The refiner of a processor: where it comes from, and, once it has been used, its weights.

A processor is copied, printed, hashed and pickled again and again; a handle is shared by copies and never takes weights
into a pickle.
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


class RefinerHandle:
    """Loads a refiner on first use.

    Attributes:
        source: directory or Hub id, or `None` when there is none or only one in memory.
        subfolder: of the source.
        load_kwargs: for `from_pretrained` (`dtype`, `device_map`, `tag_thresholds`, hub arguments).
        device, dtype: where the refiner goes when it is loaded.
        skipped: there is one at the source, but it is not to be used.
        store: stored visual objects to be used before the refiner; anything with `lookup(picture)`.
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
    def find(cls, checkpoint: str | os.PathLike, load_kwargs: dict[str, Any]) -> RefinerHandle:
        """A handle on the refiner of a checkpoint; an empty one where the checkpoint has none."""
        hub_kwargs = {name: load_kwargs[name] for name in HUB_KWARGS if name in load_kwargs}
        found = find_file(checkpoint, "config.json", subfolder=REFINER_FOLDER, **hub_kwargs)
        return cls() if found is None else cls(os.fspath(checkpoint), REFINER_FOLDER, load_kwargs)

    @property
    def exists(self) -> bool:
        """Whether there is a refiner, loaded or not."""
        return self._module is not None or (self.source is not None and not self.skipped)

    @property
    def loaded(self) -> bool:
        """Whether its weights are in memory."""
        return self._module is not None

    def attach(self, module: Refiner) -> None:
        """Use a refiner that is in memory."""
        self._module = module

    def get(self) -> Refiner:
        """The refiner, loaded on the first call.

        Raises:
            ValueError: when there is none, or when its files are damaged.
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
        """Choose device and dtype, now and for a refiner that is loaded later."""
        self.device = device if device is not None else self.device
        self.dtype = dtype if dtype is not None else self.dtype
        if self._module is not None:
            self._place(self._module)

    def _place(self, module: Refiner) -> None:
        if self.device is not None or self.dtype is not None:
            module.to(device=self.device, dtype=self.dtype)

    def config(self) -> RefinerConfig | None:
        """The refiner's configuration without its weights; `None` where there is none.

        It has the dtype that the weights get, and no fingerprint where that dtype, or the thresholds, are not those
        that it was saved with.
        """
        if self._module is not None or self.source is None:
            return getattr(self._module, "config", None)
        config, dtype = self._load_config(self.source), self.dtype or self.load_kwargs.get("dtype", "auto")
        dtype = getattr(torch, dtype, config.dtype) if isinstance(dtype, str) else dtype  # "auto" is as saved
        if dtype != config.dtype or "tag_thresholds" in self.load_kwargs:
            config.dtype, config.fingerprint = dtype, None
        return config

    def _load_config(self, source: str) -> Any:
        config_kwargs = {name: value for name, value in self.load_kwargs.items() if name not in ("dtype", "device_map")}
        return CONFIG_MAPPING[REFINER_TYPE].from_pretrained(source, subfolder=self.subfolder, **config_kwargs)

    def _load(self, source: str) -> Refiner:
        if self.subfolder:
            return AutoModel.from_pretrained(source, subfolder=self.subfolder, **self.load_kwargs)
        # the published layout has the refiner's weights among the model's: the configuration says what to take
        load_kwargs = {name: value for name, value in self.load_kwargs.items() if name != "tag_thresholds"}
        return AutoModel.from_pretrained(source, config=self._load_config(source), **load_kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> RefinerHandle:
        return self

    def __getstate__(self) -> dict[str, Any]:
        if self._module is not None and self.source is None:
            raise ValueError(
                "A processor with an attached refiner cannot be pickled, since the weights would go with it. Save it "
                "with `save_pretrained` and load it from there, or attach the refiner in the other process."
            )
        return self.__dict__ | {"_module": None}
