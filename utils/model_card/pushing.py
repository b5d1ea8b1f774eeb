"""Card of a model that is uploaded with Transformers' own `model.push_to_hub`."""

from __future__ import annotations

import os
from pathlib import Path

from . import CARD, CardFacts, ModelFiles, read_text, write_card

_TEMPLATE = "This model card has been automatically generated."  # in the template of `huggingface_hub`
_TYPES = ("lyrics", "lyrics_pretraining")


def replace_template(folder: str | os.PathLike[str], repo_id: str) -> None:
    """Write our card in place of the template that Transformers uploads with a new model; other cards stay.

    Args:
        folder: folder that is uploaded, with the model and a card.
        repo_id: Hub id of the model.
    """
    folder = Path(folder)
    facts = CardFacts(repo_id.split("/")[-1], place=repo_id)
    if _TEMPLATE not in (read_text(folder / CARD) or "") or not (folder / "config.json").is_file():
        return
    if ModelFiles.read(folder, facts).config.get("model_type") in _TYPES:
        (folder / CARD).unlink()
        write_card(folder, facts)
