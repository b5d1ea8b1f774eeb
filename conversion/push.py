"""Upload of a model to the Hub, in one commit."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..utils.model_card import CARD, LOSSES_PICTURE, is_hub_id, merge_cards
from .export import ADAPTER_CONFIG, export_model
from .remote_code import module_names

# Files of an earlier model in the repository: of two kinds side by side, a reader would load either.
_REPLACED = (
    "model*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_*",
    "lyrics_adapter.json",
    "refiner/*",
    LOSSES_PICTURE,
    *module_names(),
)


def push_model(
    source: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | bool | None = None,
    **options: Any,
) -> CommitInfo:
    """Export a model to a temporary folder, and upload it to a repository of the Hub in one commit.

    The repository is created if it is missing. The model in it is replaced; other files stay, and so does a card that a
    person wrote there. An upload that is interrupted changes nothing in the repository, and repeating it sends only
    what is missing.

    Args:
        source: folder of a model, a first stage or an adapter in this package's layout.
        repo_id: Hub id, `OWNER/NAME`.
        private: bool, whether a new repository is private; by default as the owner has set it.
        revision: branch, which is created if it is missing; by default the main one.
        create_pr: bool, whether a pull request is opened instead.
        commit_message: title of the commit.
        token: token of the Hub; by default the stored one.
        options: options of `export_model`.

    Returns:
        The commit, with its address.

    Raises:
        ValueError: as in `export_model`; or the base model of an adapter is not on the Hub, or `private` is set and
            the repository is public. Nothing was uploaded then.
        OSError: the Hub refuses the upload, or cannot be reached.
    """
    require_repo_id(repo_id)
    with export_aside(source, repo_id, **options) as folder, naming_connection_errors():
        if constants.HF_HUB_OFFLINE:
            raise OSError(f"{repo_id} cannot be reached in offline mode: unset HF_HUB_OFFLINE.")
        api = HfApi(token=token)
        if (folder / ADAPTER_CONFIG).is_file():
            base = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
            require_on_hub(api, base)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if private and not api.model_info(repo_id).private:
            raise ValueError(
                f"{repo_id} exists and is public, and --private makes new repositories private only: change it in its "
                "settings first. Nothing was uploaded."
            )
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        return upload(api, folder, repo_id, revision, create_pr, commit_message or "Upload the model with ziya-lyrics")


def require_on_hub(api: HfApi, base_id: str) -> None:
    """Raise a `ValueError` where the base model of an adapter is not on the Hub, so that nobody could load it.

    Args:
        api: client of the Hub; private and gated models count if it may see them.
        base_id: Hub id.
    """
    try:
        api.model_info(base_id)
    except GatedRepoError:
        return
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"The base model {base_id} is not on the Hub, or this token may not see it, so that nobody could load the "
            "adapter: push the base model first, or name another one (--base-model OWNER/NAME; in a training, "
            "base_model_id)."
        ) from error


@contextmanager
def naming_connection_errors() -> Iterator[None]:
    """Turn errors of the connection into an `OSError` that says what to do, within a `with` block.

    They are of the HTTP library of `huggingface_hub`, which is another one from release to release.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
            raise
        raise OSError(f"The Hub ({constants.ENDPOINT}) cannot be reached: {error}. Push again later.") from error


def upload(
    api: HfApi, folder: Path, repo_id: str, revision: str | None, create_pr: bool, commit_message: str
) -> CommitInfo:
    """Upload an exported folder in one commit; a card that a person wrote or edited in the repository stays.

    Raises:
        OSError: the Hub refuses the upload, or it was interrupted.
    """
    card = read_remote_card(api, repo_id, revision)
    if card is not None and (folder / CARD).is_file():
        merged = merge_cards(card, (folder / CARD).read_text(encoding="utf-8"))
        (folder / CARD).write_text(merged, encoding="utf-8")
    try:
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            delete_patterns=list(_REPLACED),
        )
    except RuntimeError as error:  # of one file; the commit comes after all files
        raise OSError(
            f"{error} {error.__cause__ or ''} The repository is unchanged; push again to send what is missing."
        ) from error


def read_remote_card(api: HfApi, repo_id: str, revision: str | None) -> str | None:
    """Return the text of a repository's card, `None` where it has none."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = api.hf_hub_download(repo_id, CARD, revision=revision, local_dir=folder)
            return Path(path).read_text(encoding="utf-8")
    except (EntryNotFoundError, RevisionNotFoundError, RepositoryNotFoundError):
        return None


def require_repo_id(repo_id: str) -> None:
    """Raise a `ValueError` unless a text is an id that the Hub gives to repositories."""
    if not is_hub_id(repo_id) or "/" not in repo_id:
        raise ValueError(f"A repository's id is OWNER/NAME of letters, digits, '.', '_' and '-', got {repo_id!r}.")


@contextmanager
def export_aside(source: str | os.PathLike[str], repo_id: str, **options: Any) -> Iterator[Path]:
    """Export a model to a temporary folder, which is removed at the end of the block.

    The folder lies in that of the model, if it can be written, so that weights need not be copied.

    Args:
        source: folder of the model.
        repo_id: Hub id that the model will have.
        options: options of `export_model`.

    Yields:
        The folder.
    """
    place = source if os.path.isdir(source) and os.access(source, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=".publishing-", dir=place) as folder:
        export_model(source, folder, repo_id=repo_id, link=True, **options)
        yield Path(folder)
