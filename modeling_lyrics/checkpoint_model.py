"""Saving and loading that all models of this package share."""

from __future__ import annotations

import copy
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.distributed.utils import is_local_dist_rank_0
from transformers.integrations import is_fsdp_enabled

from .checkpoint_files import check_configuration, check_file, check_index, check_names, naming_disk_errors

# Transformers changes torch's functions while it loads a model: a second thread would get weights without values.
_LOADING = threading.RLock()

_CAPTURING_HOOK = "output_capturing_hook"  # its name in transformers.utils.output_capturing


# Functions that write the model card of a folder before it is uploaded to a Hub id. The package adds its own; as remote
# code there is none.
CARD_WRITERS: list[Callable[[str, str], None]] = []


class NativeCheckpointModel(PreTrainedModel):
    """A `PreTrainedModel` that saves in this package's layout, and whose loading errors name file and weight.

    Transformers writes a model back in the layout that it was loaded from, or in the source layout of a registered
    conversion; nothing else could read these files. Its errors about damaged files name no file, its errors about
    shapes no weight, and it follows an index of shards to any file of the machine.
    """

    def __init__(self, config: PreTrainedConfig, *inputs: Any, **kwargs: Any) -> None:
        if config.dtype is not None:
            _set_dtype(config, config.dtype)
        super().__init__(config, *inputs, **kwargs)

    @classmethod
    def is_custom_code(cls) -> bool:
        """Return `False`: new weights are initialized as in Transformers' own models.

        For others Transformers skips what has no weights of its own, such as a language model that fills the buffers
        of its parts (Falcon-H1), so that these would stay without values.
        """
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the hooks by which Transformers records outputs: no pickle takes them.

        Transformers installs them again when they are needed.
        """
        return _without_capturing_hooks(self, {}).__dict__

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a copy that keeps those hooks: compiling it in one graph needs them installed."""
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(self.__dict__, memo))
        return copied

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, save_original_format: bool = False, **kwargs: Any
    ) -> None:
        """Save weights and configuration, always in this package's layout.

        Args:
            save_directory: folder of the checkpoint.
            args: Transformers' further arguments.
            save_original_format: write the layout that the model was loaded from; `False` by default, unlike in
                Transformers.
            kwargs: Transformers' further arguments.

        Raises:
            OSError: naming the folder, if the disk is full or fails.
        """
        with naming_disk_errors(save_directory):
            super().save_pretrained(save_directory, *args, save_original_format=save_original_format, **kwargs)

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Upload a folder as in Transformers, with a model card of the package instead of an empty one."""
        for write in CARD_WRITERS:
            write(os.fspath(working_dir), repo_id)
        upload: Any = super()._upload_modified_files
        return upload(working_dir, repo_id, *args, **kwargs)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load a model from a folder or from the Hub, as in Transformers; threads load one after the other.

        Raises:
            ValueError: a file is damaged, could run code, lies outside the checkpoint, or does not fit the
                configuration; the message names the file, and the weight or key.
            OSError: a file is missing.
        """
        place = pretrained_model_name_or_path
        if place is not None and os.path.isdir(place):
            folder = os.path.join(place, kwargs.get("subfolder") or "")
            if kwargs.get("config") is None:
                check_configuration(folder)
            check_index(folder, kwargs.get("variant"))
        try:
            with _LOADING:
                return super().from_pretrained(place, *args, **kwargs)
        except ValueError as error:
            if place is None or os.fspath(place) in str(error):
                raise
            raise ValueError(f"{place}: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
            if place is None:
                raise
            raise ValueError(f"{place} cannot be loaded as {cls.__name__}: {type(error).__name__}: {error}") from error

    # Two steps of Transformers' loading that are not public; tests/modeling_lyrics/test_state.py fails if they change.

    @staticmethod
    def _load_pretrained_model(
        model: Any, state_dict: Any, checkpoint_files: list[str] | None, load_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Check the names of the shards before they are read; name a damaged file afterwards."""
        check_names(
            (load_config.sharded_metadata or {}).get("weight_map", {}), load_config.pretrained_model_name_or_path
        )
        try:
            return PreTrainedModel._load_pretrained_model(
                model, state_dict, checkpoint_files, load_config, *args, **kwargs
            )
        except Exception:
            for path in checkpoint_files or () if state_dict is None else ():
                check_file(path)
            raise

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: Any) -> Any:
        """Refuse weights of other shapes before memory is allocated for them, and weights that are NaN."""
        place = load_config.pretrained_model_name_or_path
        if loading_info.conversion_errors:
            name, error = next(iter(loading_info.conversion_errors.items()))
            raise ValueError(f"{place}: {name} cannot be made from the checkpoint's weights: {error}")
        if loading_info.mismatched_keys and not load_config.ignore_mismatched_sizes:
            listed = sorted(loading_info.mismatched_keys)
            names = [f"{name} is {tuple(stored)} and not {tuple(wanted)}" for name, stored, wanted in listed[:5]]
            more = f", and {len(listed) - 5} more" if len(listed) > 5 else ""
            raise ValueError(f"{place} does not fit its configuration: {', '.join(names)}{more}.")
        loading_info = PreTrainedModel._finalize_model_loading(model, load_config, loading_info)
        if (name := _find_nan(model)) is not None:
            raise ValueError(f"{place}: {name} has values that are not numbers (NaN).")
        return loading_info


def _without_capturing_hooks(module: torch.nn.Module, seen: dict[int, torch.nn.Module]) -> torch.nn.Module:
    """Return a module and its children as new objects with the same weights, without hooks that record outputs.

    The module itself is not changed, since another thread may be using it.
    """
    if id(module) not in seen:
        seen[id(module)] = copied = module.__class__.__new__(module.__class__)
        state = {name: value for name, value in vars(module).items() if name != "_output_capturing_hooks_installed"}
        hooks = state["_forward_hooks"].items()
        kept = ((key, hook) for key, hook in hooks if getattr(hook, "__name__", "") != _CAPTURING_HOOK)
        state["_forward_hooks"] = OrderedDict(kept)
        children = state["_modules"].items()
        state["_modules"] = {
            name: None if child is None else _without_capturing_hooks(child, seen) for name, child in children
        }
        vars(copied).update(state)
    return seen[id(module)]


def _find_nan(model: torch.nn.Module) -> str | None:
    """Return the name of the first weight with NaN among those in memory, or `None`.

    Quantized weights are skipped. Of several processes, each checks what it holds.
    """
    if is_fsdp_enabled() and not is_local_dist_rank_0():
        return None  # with FSDP, the first process of a machine loads the values, and the others get them later
    for name, weight in model.named_parameters():
        values: Any = weight.data
        values = values.to_local() if hasattr(values, "to_local") else values  # this process's part of a DTensor
        plain = type(values) is torch.Tensor and values.dtype in (torch.float32, torch.float16, torch.bfloat16)
        if plain and not values.is_meta and values.sum(dtype=torch.float32).isnan() and values.isnan().any():
            return name
    return None


def _set_dtype(config: PreTrainedConfig, dtype: Any) -> None:
    """Set the dtype of a configuration and of all its sub-models.

    Transformers does so for the first level alone, and builds a deeper sub-model in the dtype that was saved with it.
    """
    config.dtype = dtype
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            _set_dtype(part, dtype)
