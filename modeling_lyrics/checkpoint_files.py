"""What is wrong with the files of a checkpoint: weights are read without running code, and what is damaged is named."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath, PureWindowsPath
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils.hub import cached_file

HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision")

# In the order in which Transformers looks for them; an index counts where the single file is missing.
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Turn the errors of reading a file of weights into a `ValueError` that names it."""
    try:
        yield
    except UnpicklingError as error:
        raise ValueError(
            f"{os.fspath(path)!r} is not a file of weights alone; it is not loaded, since it could run code."
        ) from error
    except FileNotFoundError:
        raise
    except (SafetensorError, RuntimeError, EOFError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged or incomplete: {error}") from error


def read_pickled(path: str | os.PathLike, **kwargs: Any) -> Any:
    """What `torch.save` wrote, mapped into memory where the file allows it; anything that could run code is refused."""
    return torch.load(path, weights_only=True, mmap=is_zipfile(path), **kwargs)


def check_file(path: str | os.PathLike) -> None:
    """Read the names and shapes of a file's weights.

    Raises:
        ValueError: naming the file, when it is damaged, or holds anything but named weights.
    """
    with naming(path):
        if os.fspath(path).endswith(".safetensors"):
            with safe_open(path, framework="pt"):
                return
        weights = read_pickled(path, map_location="meta")
    if not isinstance(weights, Mapping) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise ValueError(f"{os.fspath(path)!r} holds no weights by name.")


def check_names(weight_map: Mapping[Any, Any], place: str | os.PathLike) -> None:
    """Check the files that an index names.

    Raises:
        ValueError: naming the weight and the file, when one lies outside the checkpoint's folder.
    """
    for key, name in weight_map.items():
        if not is_inside(name):
            raise ValueError(f"{place}: the index puts {key} into {name!r}, which is no file of this checkpoint.")


def is_inside(name: Any) -> bool:
    """Whether this is the name of a file within a folder, on any system."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    return not any(path.anchor or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name)))


def check_index(folder: str | os.PathLike, variant: str | None = None) -> None:
    """Check the index of a local folder's weights, if it has one.

    Raises:
        ValueError: naming the index, and the weight that it puts into an impossible file.
    """
    for name in _SINGLE_FILES:
        if os.path.isfile(os.path.join(folder, _with_variant(name, variant))):
            return
        index = os.path.join(folder, _with_variant(f"{name}.index.json", variant))
        if os.path.isfile(index):
            check_names(_read_index(index), index)
            return


def _with_variant(name: str, variant: str | None) -> str:
    stem, ending = os.path.splitext(name)
    return f"{stem}.{variant}{ending}" if variant else name


def find_file(checkpoint: str | os.PathLike, name: str, required: bool = False, **hub_kwargs: Any) -> str | None:
    """Where a file of a directory or Hub id lies, or `None`; an `OSError` where a required one is missing."""
    return cached_file(
        checkpoint,
        name,
        _raise_exceptions_for_missing_entries=required,
        _raise_exceptions_for_connection_errors=required,
        **hub_kwargs,
    )


def read_object(path: str | os.PathLike) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        ValueError: naming the file, when it holds anything else.
    """
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{os.fspath(path)!r} holds no object, but a {type(value).__name__}.")
    return value


def _read_index(path: str) -> dict[str, Any]:
    index = read_object(path)
    if not all(isinstance(index.get(name), dict) for name in ("weight_map", "metadata")):
        raise ValueError(f"{path!r} is no index of weights: it needs an object 'weight_map' and an object 'metadata'.")
    return index["weight_map"]
