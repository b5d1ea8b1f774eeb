"""Loading of a model with its processor: the shipped micro model, a folder, an adapter, or a Hub id."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from ..assets.example import MICRO_CHECKPOINT
from ..modeling_lyrics import LyricsForConditionalGeneration
from ..processing_lyrics import LyricsProcessor
from ..processing_lyrics.processor_checks import HUB_KWARGS, PROCESSOR_FILES, find_adapter_base, find_file
from ..refinement.store import RefinementStore
from ..utils.native_dtype import native_dtype

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def choose_device(name: str | torch.device | None) -> torch.device:
    """Return the device asked for, or CUDA where there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # the meta device computes, but holds no numbers
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot run on device {str(name)!r}: {reason}") from error
    return device


def choose_dtype(name: str | torch.dtype | None, device: str | torch.device | None = None) -> torch.dtype | None:
    """Return the dtype of a name such as `"bfloat16"`; `None` stays, for weights as they were saved.

    Args:
        name: dtype or its name; `"auto"` is bfloat16 where the device computes it natively, else float32.
        device: device of the weights; CUDA by default where there is one.

    Raises:
        ValueError: there is no such dtype of floating point numbers.
    """
    if name is None:
        return None
    if isinstance(name, str) and name == "auto":
        return native_dtype(device)
    dtype = getattr(torch, name, None) if isinstance(name, str) else name
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be auto, float32, bfloat16 or float16, got {name!r}.")
    return dtype


def check_place(model: str | os.PathLike[str] | None, **hub_kwargs: Any) -> str:
    """Return the folder or Hub id of a model; that of the micro model for `None`.

    An id of which no file is cached is looked up with a single request, so that a misspelled folder is found at once
    without a network: the loading itself asks for many files, and for each of them several times.

    Args:
        model: folder or Hub id.
        hub_kwargs: arguments of `HUB_KWARGS`.

    Raises:
        ValueError: it is neither.
        OSError: it is no folder, no file of it is cached, and the Hub cannot be reached.
    """
    place = os.fspath(MICRO_CHECKPOINT if model is None else model)
    if Path(place).is_dir():
        return place
    if not _HUB_ID.fullmatch(place):
        raise ValueError(f"{place}: there is no such directory, and it is not a Hub id (OWNER/NAME).")
    if not _is_cached(place, **hub_kwargs):
        _require_hub(place, **hub_kwargs)
    return place


def _is_cached(repo_id: str, **hub_kwargs: Any) -> bool:
    """Return whether the Hub's cache knows a file of a model, also one that the model lacks."""
    where = {name: hub_kwargs.get(name) for name in ("cache_dir", "revision")}
    names = (*PROCESSOR_FILES, "adapter_config.json")
    return any(try_to_load_from_cache(repo_id, name, **where) is not None for name in names)


def _require_hub(repo_id: str, **hub_kwargs: Any) -> None:
    """Raise an `OSError` where the Hub cannot be asked for a model; what it answers is left to the loading."""
    url = hf_hub_url(repo_id, "config.json", revision=hub_kwargs.get("revision"))
    cause: Exception | None = None
    if is_offline_mode():
        reason = "offline mode is on (HF_HUB_OFFLINE)"
    elif hub_kwargs.get("local_files_only"):
        reason = "local_files_only is set"
    else:
        try:
            get_hf_file_metadata(url, token=hub_kwargs.get("token"))
            return
        except HfHubHTTPError:  # an answer, such as that there is no such model or no such file
            return
        except Exception as error:  # noqa: BLE001  (of httpx or httpx2, by the release of huggingface_hub)
            cause, reason = error, str(error) or type(error).__name__
    raise OSError(
        f"{repo_id}: there is no such directory, no model of this name is cached, and the Hub ({constants.ENDPOINT}) "
        f"cannot be reached: {reason}. Check the name and the network."
    ) from cause


def load_processor(
    model: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    store: Any = None,
    tag_thresholds: str | os.PathLike[str] | None = None,
    refiner: Any = True,
    refiner_kwargs: Mapping[str, Any] | None = None,
    **hub_kwargs: Any,
) -> LyricsProcessor:
    """Load the processor of a model; its refiner is loaded when it is first needed.

    Args:
        model: folder or Hub id of a model or an adapter; the micro model by default. An adapter without a processor of
            its own has that of its base model.
        device: device of the refiner; CUDA by default where there is one.
        dtype: dtype of the refiner's weights, by default as they were saved; `"auto"` for what the device is fast at.
        store: store of `refine_dataset` that is asked before the refiner, or its folder.
        tag_thresholds: file with the thresholds of the tagger, one per tag and line.
        refiner: `False` for none, or a refiner to use instead of the saved one.
        refiner_kwargs: further arguments of the refiner's `from_pretrained`.
        hub_kwargs: `revision`, `token`, `cache_dir`, `local_files_only`, `trust_remote_code`, ...

    Raises:
        ValueError: there is no such model, device, dtype or store, or a file is damaged.
        OSError: a file is missing, or the Hub cannot be reached.
    """
    hub = _select_hub_kwargs(hub_kwargs)
    chosen, weights_dtype, place = choose_device(device), choose_dtype(dtype, device), check_place(model, **hub)
    kwargs = dict(refiner_kwargs or {})
    if tag_thresholds is not None:
        kwargs["tag_thresholds"] = tag_thresholds
    options = dict(hub_kwargs)
    base = find_adapter_base(place, **hub)
    if base is not None and not any(find_file(place, name, **hub) for name in PROCESSOR_FILES):
        place, options["revision"] = base
    processor = LyricsProcessor.from_pretrained(place, refiner=refiner, refiner_kwargs=kwargs, **options)
    processor.to(chosen, weights_dtype)
    if store is not None:
        processor.store = open_store(store)
    return processor


def _select_hub_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments of `from_pretrained` that say how a file is found on the Hub."""
    return {name: kwargs[name] for name in HUB_KWARGS if kwargs.get(name) is not None}


def open_store(store: Any) -> Any:
    """Return the store in a folder; a store itself stays."""
    return RefinementStore.open(store) if isinstance(store, str | os.PathLike) else store


def load_model(
    model: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    **model_kwargs: Any,
) -> Any:
    """Load a model for inference.

    Args:
        model: folder or Hub id of a model or an adapter; the micro model by default.
        device: device; CUDA by default where there is one. With a `device_map`, that decides.
        dtype: dtype of the weights, by default as they were saved; `"auto"` for what the device computes fast.
        model_kwargs: further arguments of `LyricsForConditionalGeneration.from_pretrained`.

    Raises:
        ValueError: there is no such model, device or dtype, or a file is damaged.
        OSError: a file is missing, or the Hub cannot be reached.
    """
    chosen, place = choose_device(device), check_place(model, **_select_hub_kwargs(model_kwargs))
    loaded: Any = LyricsForConditionalGeneration.from_pretrained(
        place, dtype=choose_dtype(dtype, device) or "auto", **model_kwargs
    )
    if "device_map" not in model_kwargs and "quantization_config" not in model_kwargs:
        loaded.to(chosen)
    return loaded.eval()
