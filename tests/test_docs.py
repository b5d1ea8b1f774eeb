"""The code that README and docs show runs as pasted."""

import importlib
import json
import re
from itertools import chain
from pathlib import Path

import pytest
import yaml

from lyrics.recipes.micro.report.table import format_table

ROOT = Path(__file__).parents[1]
NOT_RUN = "# not run: "  # how code begins that cannot run here, and why
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if "```python" in page.read_text()]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_a_page(page, tmp_path, monkeypatch, capsys):
    """From top to bottom, as one program; of what cannot run, that it compiles."""
    for block in blocks(page):
        compile(block, page.name, "exec")
    code = "\n".join(block for block in blocks(page) if not block.startswith(NOT_RUN))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page.name, "exec"), {})
    if page.name == "README.md":
        assert (tmp_path / "seen.png").is_file()
        assert capsys.readouterr().out


@pytest.mark.parametrize("page", ["README.md", "docs/micro.md", "assets/lyrics_micro/README.md"])
def test_the_table_of_the_micro_model_is_what_was_measured(page):
    assert format_table(ROOT / "docs/results/micro") in (ROOT / page).read_text()


def test_the_docs_say_what_a_whole_run_measured():
    measured = format_table(ROOT / "docs/results/micro_whole").splitlines()
    assert "\n".join(measured[:3]) in (ROOT / "docs/micro.md").read_text()  # without guessing, which is the same


def test_the_card_of_the_micro_model_tells_its_own_numbers():
    measured = json.loads((ROOT / "docs/results/micro/full-0/evaluation/results.json").read_text())["accuracy"]
    numbers = ", ".join(f"{kind} {value:.1f}" for kind, value in measured.items())
    assert f"\n{numbers}.\n" in (ROOT / "assets/lyrics_micro/README.md").read_text()


def test_there_are_examples():
    assert {page.name for page in PAGES} >= {"README.md", "stage1.md", "stage2.md"}


@pytest.mark.parametrize("page", sorted((ROOT / "docs/api").glob("*.md")), ids=lambda page: page.stem)
def test_the_reference_lists_names_that_there_are(page):
    text = page.read_text()
    module = importlib.import_module(re.search(r"::: (\S+)", text)[1])
    listed = re.findall(r"\w+", re.search(r"members: \[(.*?)\]", text, flags=re.DOTALL)[1])
    assert set(listed) <= set(module.__all__)


def test_the_reference_lists_every_model():
    module = importlib.import_module("lyrics.modeling_lyrics")
    text = (ROOT / "docs/api/modeling.md").read_text()
    assert [name for name in module.__all__ if name not in text] == ["LyricsPreTrainedModel"]


def test_every_page_can_be_reached():
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = {page for entry in navigation for page in ([entry] if isinstance(entry, str) else chain(*entry.values()))}
    assert listed == pages
