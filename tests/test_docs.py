"""The code that README and docs show runs as pasted."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDS = {"docs/published_checkpoint.md": "14 billion weights"}  # pages whose code cannot run here, and why
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if "```python" in page.read_text()]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_a_page(page, tmp_path, monkeypatch, capsys):
    """From top to bottom, as one program."""
    code = "\n".join(blocks(page))
    compiled = compile(code, page.name, "exec")
    if str(page.relative_to(ROOT)) in NEEDS:
        return  # that it compiles is all that can be said
    monkeypatch.chdir(tmp_path)
    exec(compiled, {})
    if page.name == "README.md":
        assert (tmp_path / "seen.png").is_file()
        assert capsys.readouterr().out


def test_there_are_examples():
    assert {page.name for page in PAGES} >= {"README.md", "pretraining.md"}
