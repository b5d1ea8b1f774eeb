"""Checks of a model card, for the tests of every way out of the package."""

import contextlib
import io
import json
import os
import re
from pathlib import Path

from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from lyrics.utils.model_card import is_ours
from lyrics.utils.model_card.metadata import check_metadata

TEXTS = (".json", ".jsonl", ".md", ".jinja", ".py", ".txt", ".yaml")
MAY_NAME_ITS_BASE = {"adapter_config.json": "base_model_name_or_path", "lyrics_adapter.json": "base_model"}


def find_paths(folder: Path, *words: str, published: bool = False) -> list[str]:
    """Lines of a folder's text files with a path of this machine or one of the words.

    A local adapter may name its base model.
    """
    secrets = [word for word in (*words, str(folder.parent), str(Path.cwd()), os.path.expanduser("~/")) if word != "/"]
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix not in TEXTS:
            continue
        text = path.read_text(encoding="utf-8")
        if path.name in MAY_NAME_ITS_BASE and not published:
            text = json.dumps(json.loads(text) | {MAY_NAME_ITS_BASE[path.name]: None}, indent=1)
        found += [f"{path.name}: {line}" for line in text.splitlines() if any(word in line for word in secrets)]
    return found


def check_card(folder: Path, **expected: object) -> ModelCard:
    """Load a card of ours, and check its metadata, its results and that nothing beside it names this machine."""
    card = ModelCard.load(folder / "README.md")
    metadata = card.data.to_dict()
    assert is_ours(card.content)
    check_metadata(metadata)
    assert ModelCard(str(card)).data.to_dict() == metadata
    if results := card.data.eval_results:
        index = eval_results_to_model_index(card.data.model_name, results)
        assert model_index_to_eval_results(index) == (card.data.model_name, results)
    assert {name: metadata.get(name) for name in expected} == expected
    assert not find_paths(folder)
    return card


def quick_start_of(card: ModelCard) -> str:
    """The first program of a card."""
    return re.search(r"```python\n(.*?)```", card.text, re.DOTALL)[1]


def run_quick_start(card: ModelCard, monkeypatch, folder: Path) -> str:
    """Run the first program of a card as pasted, in a folder, and return what it prints."""
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(quick_start_of(card), "README.md", "exec"), {})
    return printed.getvalue()
