"""Model cards: `README.md` with metadata for the Hub, true for the model beside it.

Every way out of the package calls `write_card`. A card that a person wrote is never changed; one of ours is refreshed
between its markers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from ..atomic_files import write_file
from .card_file import is_by_hand, is_ours, merge_cards, read_metadata, read_results, refresh_card
from .facts import CardFacts, DataName, ModelFiles, TrainingFacts
from .metadata import LICENSES, PUBLISHED_LICENSE, BaseModel, build_metadata, choose_license, find_hub_id, is_hub_id
from .quick_start import write_quick_start
from .sections import (
    FOLLOWS,
    LOSSES_PICTURE,
    write_citation,
    write_evaluation,
    write_license,
    write_limits,
    write_losses,
    write_seeing,
    write_title,
    write_training,
    write_versions,
)

CARD = "README.md"


def write_card(
    folder: str | os.PathLike[str],
    facts: CardFacts,
    *,
    present: str | os.PathLike[str] | None = None,
    earlier: str | os.PathLike[str] | None = None,
) -> bool:
    """Write the model card of a folder, or refresh it; a card that a person wrote stays as it is.

    Args:
        folder: folder of a model or adapter, with all its other files.
        facts: what the files do not say.
        present: card to be refreshed, by default that of `folder`; it may be missing.
        earlier: card of the model that this one was made from. What it says of training and results is still true, and
            stays. It may be missing, and one that a person wrote is not used.

    Returns:
        Whether a card was written; `False` where a person wrote the present one.

    Raises:
        ValueError: the folder holds no model, or a value of the metadata is none that the Hub knows.
    """
    folder = Path(folder)
    old = read_text(folder / CARD if present is None else Path(present))
    if old is not None and is_by_hand(old):
        return False
    if old is not None and not is_ours(old):
        old = None
    before = None if earlier is None else read_text(Path(earlier))
    keep = before is not None and is_ours(before)
    if keep and earlier is not None and (losses := Path(earlier).with_name(LOSSES_PICTURE)).is_file():
        shutil.copyfile(losses, folder / LOSSES_PICTURE)
    text = compose_card(folder, facts, before if keep else old, keep=keep)
    with write_file(folder / CARD, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def add_results(folder: str | os.PathLike[str], results: Sequence[EvalResult]) -> bool:
    """Add results to the card of a model, in place of earlier ones of the same data and metric.

    Args:
        folder: folder of a model or adapter; without a card it gets one.
        results: results of an evaluation.

    Returns:
        Whether the card was written; `False` where a person wrote the present one.

    Raises:
        ValueError: the folder holds no model.
    """
    folder = Path(folder)
    old = read_text(folder / CARD)
    if old is not None and is_by_hand(old):
        return False
    if old is not None and not is_ours(old):
        old = None  # a template of another library
    name, known = read_results("" if old is None else old)
    new = {(one.dataset_name, one.metric_type) for one in results}
    merged = [*(one for one in known if (one.dataset_name, one.metric_type) not in new), *results]
    has_code = (folder / "modeling_lyrics.py").is_file()
    facts = CardFacts(name or Path(os.path.abspath(folder)).name, results=merged, has_remote_code=has_code)
    text = compose_card(folder, facts, old, keep=old is not None)
    with write_file(folder / CARD, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def compose_card(folder: Path, facts: CardFacts, old: str | None = None, keep: bool = False) -> str:
    """Return the text of a model's card.

    Args:
        folder: folder of the model.
        facts: what the files do not say.
        old: text of the card to be refreshed, which must be ours, or `None` for a new one.
        keep: whether what `old` says stays where `facts` say nothing new.
    """
    files = ModelFiles.read(folder, facts)
    known = read_metadata(old) if old is not None and keep else {}
    results = [*facts.results, *(facts.training.results() if facts.training else ())]
    license = facts.license or choose_license(facts.bases) or known.get("license")
    metadata = build_metadata(
        facts.name,
        bases=facts.bases,
        relation=facts.relation,
        license=license,
        datasets=facts.training.datasets() if facts.training else (),
        language=facts.language or _language_of(facts),
        tags=_tags(files, facts),
        is_pipeline=files.kind != "first stage",
        results=results,
    )
    if "model-index" in known and not results:
        metadata |= _rename_results(known["model-index"], facts.name)
    sections = {"quick-start": write_quick_start(facts, files), "versions": write_versions()}
    if not keep or facts.origin:
        sections |= {"title": write_title(facts, files), "limits": write_limits(facts, files)}
        sections |= {"citation": write_citation()}
    if not keep or results:
        step = facts.training.evaluated_step() if facts.training and not facts.results else None
        sections["evaluation"] = write_evaluation(results, step)
    if not keep or files.config:
        sections["seeing"] = write_seeing(files)
    if not keep or facts.bases or facts.license:
        sections["licence"] = write_license(facts, license)
    if facts.training is not None:
        sections["training"] = write_training(facts.training)
    sections["losses"] = write_losses((folder / LOSSES_PICTURE).is_file())
    return refresh_card(old, metadata, sections, keep)


def _rename_results(model_index: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the results of an earlier card under the name of the new model."""
    return {"model-index": [{**entry, "name": name} for entry in model_index]}


def _tags(files: ModelFiles, facts: CardFacts) -> list[str]:
    """Return the tags beside `lyrics`: what the model is, and where it comes from."""
    tags = ["visual-question-answering", "visual-grounding"] if files.kind != "first stage" else []
    tags += ["peft"] if files.kind == "adapter" else []
    tags += ["lora"] if files.adapter.get("peft_type") == "LORA" else []
    tags += ["custom_code"] if facts.has_remote_code else []
    return [*tags, "arxiv:2312.05278"]


def _language_of(facts: CardFacts) -> Sequence[str]:
    """Return English for data that the package draws; of other data the language is not known."""
    data = facts.training.data if facts.training else ()
    return ("en",) if data and all(one.is_drawn for one in data) else ()


def read_text(path: Path) -> str | None:
    """Return the text of a card, `None` where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


__all__ = [
    "CARD",
    "FOLLOWS",
    "LICENSES",
    "LOSSES_PICTURE",
    "PUBLISHED_LICENSE",
    "BaseModel",
    "CardFacts",
    "DataName",
    "ModelFiles",
    "TrainingFacts",
    "add_results",
    "compose_card",
    "find_hub_id",
    "is_by_hand",
    "is_hub_id",
    "is_ours",
    "merge_cards",
    "read_metadata",
    "write_card",
]
