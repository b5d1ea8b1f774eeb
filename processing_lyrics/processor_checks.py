"""Files of a processor's checkpoint: damaged files are found and named, and the published layout is read."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedConfig
from transformers.utils.hub import cached_file, resolve_revision

from .chat_templates import PUBLISHED_TEMPLATE

HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision")

TOKENIZER_FILES = (
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
)
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "chat_template.json", "config.json")

PUBLISHED_FOLDER = "vicuna-13b_processor"
PUBLISHED_MQFORMER_FOLDER = f"{PUBLISHED_FOLDER}/qformer_tokenizer"
_IMAGE_SETTINGS = ("size", "image_mean", "image_std", "resample", "rescale_factor")


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


def find_padding(tokenizer: Any, image_token: str) -> str:
    """Return a token to pad with, for a tokenizer without one. Padding is masked: any but a placeholder will do.

    Raises:
        ValueError: the tokenizer has no special token.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    for token in (tokenizer.unk_token, tokenizer.eos_token, *special):
        if token is not None and token != image_token:
            return token
    raise ValueError("The tokenizer has no token to pad with, and no special token: set its pad_token.")


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


def find_adapter_base(checkpoint: str | os.PathLike[str], **hub_kwargs: Any) -> tuple[str, str] | None:
    """Return the place and the revision of an adapter's base model, or `None` where there is none.

    Args:
        checkpoint: folder or Hub id.
        hub_kwargs: arguments of `HUB_KWARGS`.

    Raises:
        ValueError: a file of the adapter is damaged; the message names it.
    """
    file = find_file(checkpoint, "adapter_config.json", **hub_kwargs)
    if file is None:
        return None
    settings, details = _read_object(file), find_file(checkpoint, "lyrics_adapter.json", **hub_kwargs)
    place = settings.get("base_model_name_or_path") if details is None else _read_object(details).get("base_model")
    if not isinstance(place, str | None):
        raise ValueError(f"{details or file!r} is damaged: the name of the base model is {place!r:.100}.")
    return (place, settings.get("revision") or "main") if place else None


def _read_object(path: str) -> dict[str, Any]:
    """Return the object of a JSON file; raise a `ValueError` that names the file where it is damaged."""
    if (damage := _damage(path)) is not None:
        raise ValueError(damage)
    return json.loads(Path(path).read_text("utf-8"))


def find_damage(checkpoint: str | os.PathLike[str], folders: Iterable[str], **hub_kwargs: Any) -> str | None:
    """Return a message about the first damaged file of a processor or tokenizer, or `None`.

    Args:
        checkpoint: folder or Hub id.
        folders: iterable of the folders inside the checkpoint to search.
        hub_kwargs: arguments of `HUB_KWARGS`.
    """
    for folder in folders:
        for name in (*PROCESSOR_FILES, *TOKENIZER_FILES):
            path = find_file(checkpoint, name, subfolder=folder, **hub_kwargs)
            if path is not None and name.endswith(".json") and (damage := _damage(path)):
                return damage
    return None


def _damage(path: str) -> str | None:
    """Return a message about a damaged JSON file, or `None`."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (ValueError, RecursionError) as error:
        return f"{path!r} is not JSON: {error}"
    if not isinstance(value, dict):
        return f"{path!r} holds no object, but a {type(value).__name__}."
    if os.path.basename(path) == "tokenizer.json":
        try:
            Tokenizer.from_file(path)
        except Exception as error:  # noqa: BLE001  (the library raises nothing more special)
            return f"{path!r} is no tokenizer: {error}"
    return None


def is_published(checkpoint: str | os.PathLike[str], **hub_kwargs: Any) -> bool:
    """Return whether a folder or Hub id is in the published layout."""
    if find_file(checkpoint, f"{PUBLISHED_FOLDER}/preprocessor_config.json", **hub_kwargs) is None:
        return False
    config, _ = PreTrainedConfig.get_config_dict(checkpoint, **hub_kwargs)
    return {"ram_config", "detection_config"} <= config.keys()


def load_parts(
    checkpoint: str | os.PathLike[str], trust_remote_code: bool = False, **hub_kwargs: Any
) -> dict[str, Any]:
    """Return the arguments of a `LyricsProcessor` for the published layout; image settings are a dictionary.

    Its tokenizers and image settings lie in `vicuna-13b_processor/`.

    Raises:
        ValueError: the tokenizer has more tokens than the language model.
    """
    config, _ = PreTrainedConfig.get_config_dict(checkpoint, **hub_kwargs)
    tokenizer = AutoTokenizer.from_pretrained(
        checkpoint, subfolder=PUBLISHED_FOLDER, trust_remote_code=trust_remote_code, **hub_kwargs
    )
    vocab_size, qformer = config["text_config"]["vocab_size"], config["qformer_config"]
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"{checkpoint}: the tokenizer has {len(tokenizer)} tokens and the language model {vocab_size}; they do not "
            "belong together."
        )
    # the placeholder takes the first id after the language model's, and a tokenizer counts on from its own
    tokenizer.add_tokens([f"<unused_{index}>" for index in range(len(tokenizer), vocab_size)])
    settings = find_file(checkpoint, f"{PUBLISHED_FOLDER}/preprocessor_config.json", required=True, **hub_kwargs)
    with open(str(settings), encoding="utf-8") as file:
        image_settings = json.load(file)
    return {
        "image_settings": {name: image_settings[name] for name in _IMAGE_SETTINGS if name in image_settings},
        "tokenizer": tokenizer,
        "mqformer_tokenizer": AutoTokenizer.from_pretrained(
            checkpoint, subfolder=PUBLISHED_MQFORMER_FOLDER, trust_remote_code=trust_remote_code, **hub_kwargs
        ),
        "chat_template": PUBLISHED_TEMPLATE,
        "num_query_tokens": qformer["num_vit_query_tokens"] + qformer["num_dino_query_tokens"],
        "region_feature_size": config["detection_config"]["hidden_dim"] + 4,
        "mqformer_text": "instruction",
    }
