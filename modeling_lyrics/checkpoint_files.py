"""Safe reading and validation of checkpoint files; errors name the file that is damaged, or cannot be written."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath, PureWindowsPath
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils.hub import cached_file, resolve_revision

HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision")

# In the order in which Transformers looks for them; an index is used where the single file is missing.
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")


@contextmanager
def naming(path: str | os.PathLike[str]) -> Generator[None]:
    """Turn errors of reading a weight file into a `ValueError` that names the file, within a `with` block."""
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


@contextmanager
def naming_disk_errors(path: str | os.PathLike[str]) -> Generator[None]:
    """Turn errors of a full or failing disk into an `OSError` that names what is written, within a `with` block.

    Errors of safetensors, tokenizers and torch are of other classes and name no file.
    """
    try:
        yield
    except Exception as error:
        code = disk_error_code(error)
        if code is None:
            raise
        advice = "free some space or choose another place, and repeat"
        raise OSError(code, f"{os.strerror(code)} ({advice})", os.fspath(path)) from error


def disk_error_code(error: Exception) -> int | None:
    """Return the number of the system's error if the disk is full or fails, and `None` for any other error."""
    if isinstance(error, OSError):
        code = error.errno
    elif found := re.search(r"\(os error (\d+)\)", str(error)):  # of libraries in Rust
        code = int(found[1])
    else:  # torch keeps no number
        found = re.search("StreamWriter|unexpected pos|iostream error", str(error))
        code = errno.EIO if found and isinstance(error, RuntimeError) else None
    return code if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) else None


def read_pickled(path: str | os.PathLike[str], **kwargs: Any) -> Any:
    """Read a file of `torch.save` without running code from it; the weights are memory-mapped where possible."""
    return torch.load(path, weights_only=True, mmap=is_zipfile(path), **kwargs)


def check_configuration(folder: str | os.PathLike[str]) -> None:
    """Check that a folder holds the configuration of a model, or an adapter that names its base.

    Without one, Transformers builds the model of the default configuration.

    Raises:
        FileNotFoundError: the folder holds neither.
    """
    if not any(os.path.isfile(os.path.join(folder, name)) for name in ("config.json", "adapter_config.json")):
        raise FileNotFoundError(
            f"{os.fspath(folder)!r} has no config.json, so it is not the folder of a model. Pass the folder that a "
            "model was saved into, or a `config`."
        )


def check_file(path: str | os.PathLike[str]) -> None:
    """Check that a file holds named weights, by reading its names and shapes.

    Raises:
        ValueError: the file is damaged, or holds anything but named weights.
    """
    with naming(path):
        if os.fspath(path).endswith(".safetensors"):
            with safe_open(path, framework="pt"):
                return
        weights = read_pickled(path, map_location="meta")
    if not isinstance(weights, Mapping) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise ValueError(f"{os.fspath(path)!r} holds no weights by name.")


def check_names(weight_map: Mapping[Any, Any], place: str | os.PathLike[str]) -> None:
    """Check that every file of an index lies inside the checkpoint.

    Args:
        weight_map: mapping of weight names to file names.
        place: path of the index, for the message.

    Raises:
        ValueError: a file lies outside the checkpoint; the message names the weight and the file.
    """
    for key, name in weight_map.items():
        if not is_inside(name):
            raise ValueError(f"{place}: the index puts {key} into {name!r}, which is no file of this checkpoint.")


def is_inside(name: Any) -> bool:
    """Return whether a value is the name of a file inside a folder, on any operating system."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    return not any(path.anchor or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name)))


def check_index(folder: str | os.PathLike[str], variant: str | None = None) -> None:
    """Check the index of a local folder's weights, if there is one.

    Args:
        folder: folder of the checkpoint.
        variant: name of a variant of the weights, such as `"fp16"`.

    Raises:
        ValueError: the index is damaged, or names a file outside the folder.
    """
    for name in _SINGLE_FILES:
        if os.path.isfile(os.path.join(folder, _with_variant(name, variant))):
            return
        index = os.path.join(folder, _with_variant(f"{name}.index.json", variant))
        if os.path.isfile(index):
            check_names(_read_index(index), index)
            return


def _with_variant(name: str, variant: str | None) -> str:
    """Return a file name with the name of a variant before its extension."""
    stem, ending = os.path.splitext(name)
    return f"{stem}.{variant}{ending}" if variant else name


def find_file(checkpoint: str | os.PathLike[str], name: str, required: bool = False, **hub_kwargs: Any) -> str | None:
    """Return the path of a checkpoint's file, or `None` where there is none.

    Args:
        checkpoint: folder or Hub id.
        name: name of the file, relative to the checkpoint.
        required: raise an `OSError` instead of returning `None`.
        hub_kwargs: arguments of `HUB_KWARGS`, and `subfolder`.
    """
    return cached_file(
        checkpoint,
        name,
        _raise_exceptions_for_missing_entries=required,
        _raise_exceptions_for_connection_errors=required,
        **hub_kwargs,
    )


def pin_revision(checkpoint: str | os.PathLike[str], kwargs: dict[str, Any]) -> None:
    """Pin the revision among arguments of `from_pretrained` to the commit that it names now.

    All files of one load then come from one commit, even if somebody pushes meanwhile. A folder has no revision. Where
    the Hub cannot be asked, the revision stays as it is.

    Args:
        checkpoint: folder or Hub id.
        kwargs: dictionary of arguments, changed in place.
    """
    revision = resolve_revision(
        checkpoint,
        kwargs.get("revision"),
        token=kwargs.get("token"),
        local_files_only=bool(kwargs.get("local_files_only")),
        cache_dir=kwargs.get("cache_dir"),
    )
    if revision is not None:
        # As a plain commit: of what it has resolved, Transformers lists the files by the name, such as "main".
        kwargs["revision"] = getattr(revision, "resolved", revision)


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        ValueError: the file is not JSON, or holds anything but an object.
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
    """Return the weight map of an index file."""
    index = read_object(path)
    if not all(isinstance(index.get(name), dict) for name in ("weight_map", "metadata")):
        raise ValueError(f"{path!r} is no index of weights: it needs an object 'weight_map' and an object 'metadata'.")
    return index["weight_map"]
