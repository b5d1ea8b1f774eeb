"""Files of a model that are published: which they are, and that none of them names this machine or its user."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from safetensors import safe_open

# What belongs to a model on the Hub; everything else, such as optimizer states, checkpoints, logs and pickled
# arguments, stays where it is. The refiner of an adapter is that of its base model.
_OF_A_MODEL = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "processor_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "mqformer_tokenizer/*",
    "refiner/*",
    "*.md",
    "LICENSE*",
    "*.png",
    "*.jpg",
    "*.jpeg",
    "*.gif",
    "*.webp",
    "*.svg",
)
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")  # one of them makes a tokenizer
_OF_A_TOKENIZER = (
    *TOKENIZERS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)
_OF_AN_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "lyrics_adapter.json")
_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "config.json", "generation_config.json", "refiner/*")

# Fields of training arguments that say where a run was, and not what it did: paths, names and services of a machine.
_OF_THE_MACHINE = frozenset(
    (
        "output_dir",
        "logging_dir",
        "run_name",
        "project",
        "resume_from_checkpoint",
        "deepspeed",
        "local_rank",
        "chat_template_path",
        "model_init_kwargs",
        "report_to",
    )
)

_SECRET_VARIABLES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.IGNORECASE)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
_USERS_PATH = re.compile(r"""(?:/home/|/root/|/Users/|[A-Za-z]:\\+Users\\+)[^\s"'`<>]+""")
_LONG_ENOUGH = 8  # characters of a secret or a path, below which anything would match
_SCANNED = (".json", ".md", ".jinja", ".py", ".txt", ".svg", "")  # without an ending: LICENSE
_VOCABULARY = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")  # words of a language, paths among them


def list_published(folder: Path, is_adapter: bool) -> list[Path]:
    """Return the files of a model's folder that belong on the Hub, relative to it, in their order.

    Args:
        folder: folder of a model, which may also hold checkpoints, logs and states of a trainer.
        is_adapter: whether it is the folder of an adapter.
    """
    wanted = (*_OF_A_MODEL, *_OF_A_TOKENIZER)
    if is_adapter:
        wanted = (*(name for name in wanted if name not in _WEIGHTS), *_OF_AN_ADAPTER)
    found = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in found if any(_matches(path, pattern) for pattern in wanted)]


def _matches(path: Path, pattern: str) -> bool:
    """Return whether a path matches a pattern, of which a star never stands for a folder."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and len(path.parts) == pattern.count("/") + 1 and fnmatch(path.as_posix(), pattern)


def without_machine(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return training arguments as a dictionary without paths, and without names and services of a machine."""
    return {
        name: value
        for name, value in arguments.items()
        if name not in _OF_THE_MACHINE
        and not name.startswith(("hub_", "trackio_", "push_to_hub"))
        and not (isinstance(value, str) and os.path.isabs(value))
    }


def rewrite_json(path: Path, **changes: Any) -> None:
    """Change entries of the object in a JSON file; the file is written anew, so that a link to it is not changed."""
    value = json.loads(path.read_text(encoding="utf-8")) | changes
    path.unlink()
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def check_nothing_private(folder: Path, private: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Check that no text file of a folder names a path of this machine, its user, a token or a secret variable.

    Args:
        folder: folder of files that will be published.
        private: further texts that must not appear, such as the folder that they came from.

    Raises:
        ValueError: a file has one of them; the message names the file and the line, and shows no secret.
    """
    words = {os.fspath(word) for word in (*private, *_private_words())}
    words = {word for word in words if len(word) >= _LONG_ENOUGH}
    for path in sorted(folder.rglob("*")):
        if path.name in _VOCABULARY or not path.is_file():
            continue
        for number, line in enumerate(_read_lines(path), 1):
            if any(word in line for word in words) or _TOKEN.search(line) or _USERS_PATH.search(line):
                name = path.relative_to(folder).as_posix()
                raise ValueError(
                    f"{name} names a path, a token or a secret of this machine in line {number}: remove it there "
                    "before the model is published."
                )


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, the metadata of a file of weights, and nothing of other files."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as weights:
            return [f"{name}: {value}" for name, value in (weights.metadata() or {}).items()]
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.suffix in _SCANNED else []


def _private_words() -> Iterator[str]:
    """Yield the folders of this user and process, the token of the Hub, and the values of secret variables."""
    from huggingface_hub import get_token

    yield os.path.expanduser("~") + os.sep
    yield os.getcwd() + os.sep
    yield get_token() or ""
    for name, value in os.environ.items():
        is_random = len(value) >= 16 and any(one.isdigit() for one in value) and not any(map(str.isspace, value))
        if is_random and _SECRET_VARIABLES.search(name):
            yield value
