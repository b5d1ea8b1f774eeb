"""README and docs: their code runs, their numbers are the measured ones, and what they name exists."""

import ast
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
import yaml

from lyrics.assets import EXAMPLE_PICTURE, MICRO_CHECKPOINT
from lyrics.recipes.micro.controls.report import BEGIN, END, format_report
from lyrics.recipes.micro.controls.results import read_results
from lyrics.recipes.micro.controls.small_view import read_named
from lyrics.recipes.micro.report.measurements import format_answers, format_refiner
from lyrics.recipes.micro.report.release import format_card
from lyrics.recipes.micro.report.retrieval import format_retrieval
from lyrics.recipes.micro.report.table import format_table
from lyrics_cli.main import main

ROOT = Path(__file__).parents[1]
FOLDERS = [path for path in ROOT.iterdir() if (path / "__init__.py").is_file() and not path.name.startswith(".")]
NOT_RUN = "# not run: "  # first line of a code block that cannot run in a test, with the reason
WIDEST_CODE = 90  # columns that a code block shows without scrolling

READMES = [ROOT / "README.md", ROOT / "README_zh.md"]
GUIDES = [*READMES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
WITH_COMMANDS = [ROOT / "docs/publish.md", ROOT / "docs/own_photographs.md"]  # whose commands run too
WITH_PYTHON = [  # README_zh.md has the code of README.md
    page for page in GUIDES if "```python" in page.read_text() and page not in (READMES[1], *WITH_COMMANDS)
]


def code_blocks(page, language="[a-z]*"):
    """Contents of the fenced blocks of a page, in one language or in all."""
    return re.findall(rf"^```(?:{language})\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def inline_code(page):
    """Contents of the backticks of a page, outside of its code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


def without_comments(block):
    return [line.split(" #")[0].rstrip() for line in block.splitlines() if not line.startswith("#")]


# ---------------------------------------------------------------- code


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    """The Python blocks of a page are one program; a block that cannot run must at least compile."""
    blocks = code_blocks(page, "python")
    for block in blocks:
        compile(block, page.name, "exec")
    code = "\n".join(block for block in blocks if not block.startswith(NOT_RUN))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page.name, "exec"), {})
    if page == READMES[0]:
        assert (tmp_path / "seen.png").is_file()
        assert capsys.readouterr().out


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_code_and_commands_of_a_page_run(page, tmp_path, monkeypatch):
    """The Python blocks are one program, and commands run between them, in the order of the page."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(EXAMPLE_PICTURE, "picture.png")
    names, commands = {}, 0
    text = page.read_text()
    for language, block in re.findall(r"^```(python|sh)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        if language == "python":
            code = compile(block, page.name, "exec")
        if block.startswith(NOT_RUN):
            continue
        if language == "python":
            exec(code, names)
            continue
        for line in filter(None, without_comments(block.replace("\\\n", ""))):
            assert line.startswith("lyrics "), line
            assert main(shlex.split(line)[1:]) == 0, line
            commands += 1
    assert commands


def test_the_main_pages_have_code():
    assert {page.name for page in WITH_PYTHON} >= {"README.md", "tutorial.md", "stage1.md", "stage2.md"}


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_code_fits_the_page(page):
    wide = [line for block in code_blocks(page) for line in block.splitlines() if len(line) > WIDEST_CODE]
    assert not wide


def test_both_readmes_have_the_same_commands():
    """Comments are translated, and so is the list of folders; everything that can be typed is equal."""
    english, chinese = ([without_comments(block) for block in code_blocks(page, "sh|python")] for page in READMES)
    assert english == chinese
    trees = [next(block for block in code_blocks(page) if block.startswith("modeling_lyrics/")) for page in READMES]
    folders = [re.findall(r"^\S+/", tree, flags=re.MULTILINE) for tree in trees]
    assert folders[0] == folders[1]


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("page", ["README.md", "README_zh.md", "docs/micro.md"])
def test_the_tables_of_the_micro_model_are_what_was_measured(page):
    released = json.loads((ROOT / "docs/results/micro_released.json").read_text())
    text = (ROOT / page).read_text()
    assert format_table(ROOT / "docs/results/micro") in text
    assert format_answers(released["answers"], released["questions"]) in text
    assert page != "docs/micro.md" or format_refiner(released["refiner"]) in text


def test_the_docs_show_what_a_whole_run_measured():
    measured = format_table(ROOT / "docs/results/micro_whole").splitlines()
    assert "\n".join(measured[:3]) in (ROOT / "docs/micro.md").read_text()  # without the rows of guessing


def test_the_card_of_the_micro_model_is_made_of_its_measurements():
    released = json.loads((ROOT / "docs/results/micro_released.json").read_text())
    files = [file for file in MICRO_CHECKPOINT.rglob("*") if file.is_file() and file.suffix != ".md"]
    card = format_card(released, sum(file.stat().st_size for file in files))
    assert card == (MICRO_CHECKPOINT / "README.md").read_text()


def test_the_tables_of_retrieval_are_what_was_measured():
    measured = json.loads((ROOT / "docs/results/micro_retrieval.json").read_text())
    assert format_retrieval(measured) in (ROOT / "docs/retrieval.md").read_text()


def test_the_tables_of_performance_are_what_was_measured():
    command = [sys.executable, str(ROOT / "benchmarks/page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tables_of_the_controls_are_what_was_measured():
    controls, worth = (read_results(ROOT / "docs/results" / name) for name in ("controls", "stage1_worth"))
    shown = (ROOT / "docs/micro.md").read_text().partition(BEGIN)[2].partition(END)[0]
    named = read_named(ROOT / "docs/results/small_view")
    assert shown.strip() == format_report(controls, worth, named).strip()


# ---------------------------------------------------------------- names


@cache
def definitions(file):
    """Functions, classes and, as `Class.method`, methods of a file."""
    tree = ast.parse(file.read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    names = {node.name for node in tree.body if isinstance(node, kinds)}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return names | {f"{owner.name}.{node.name}" for owner in classes for node in owner.body if isinstance(node, kinds)}


@cache
def defined_names():
    """Everything that the packages define, by itself and behind its module's name."""
    files = [file for folder in FOLDERS if folder.name != "tests" for file in folder.rglob("*.py")]
    modules = {file: file.parent.name if file.name == "__init__.py" else file.stem for file in files}
    return {name for file in files for own in definitions(file) for name in (own, f"{modules[file]}.{own}")}


def test_the_architecture_names_what_exists():
    """`module.function`, `Class`, `Class.method`."""
    words = inline_code(ROOT / "docs/architecture.md")
    dotted = [word for word in words if re.fullmatch(r"[A-Za-z_]\w*\.[A-Za-z_]\w*", word)]
    named = [word for word in dotted if not word.endswith((".py", ".md", ".json")) and word.split(".")[0] != "lyrics"]
    named += [word for word in words if re.fullmatch(r"[A-Z][a-z]+([A-Z]\w*)+", word)]
    unknown = set(named) - defined_names() - {"AutoConfig", "AutoModel"}
    assert len(named) > 40
    assert not unknown


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_page_names_files_that_exist(page):
    """Paths from the root: `tests/trainers/test_dpo.py`, `recipes/micro`, `refinement/`."""
    tops = {path.name for path in ROOT.iterdir()} - {"runs"}  # there, commands write what they were told to
    words = chain.from_iterable(code.split() for code in inline_code(page))
    paths = [word for word in words if "/" in word and word.split("/")[0] in tops]
    assert not [path for path in paths if not list(ROOT.glob(path))]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_page_names_tests_that_exist(page):
    files = [file for file in (ROOT / "tests").rglob("test_*.py") if "golden" not in file.parts]
    known = {file.name for file in files}
    known |= {name.split(".")[-1] for file in files for name in definitions(file)}
    named = {word for word in inline_code(page) if re.fullmatch(r"test_\w+(\.py)?", word)}
    assert named <= known


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_links_between_pages_work(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), flags=re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, target


def test_troubleshooting_quotes_messages_that_exist():
    """Where a heading quotes a message of the package, the package still says so."""
    files = [file for folder in FOLDERS if folder.name != "tests" for file in folder.rglob("*.py")]
    texts = []
    for file in files:  # literals, so that a message may run over several lines; fields of an f-string do not count
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    page = (ROOT / "docs/troubleshooting.md").read_text()
    quoted = [re.sub(r"\s+", " ", found) for found in re.findall(r"^\*\*`([^`]+)`\.\*\*", page, flags=re.MULTILINE)]
    assert len(quoted) >= 5
    for message in quoted:
        wanted = message.replace("<image>", "{}")
        assert any(wanted in text or message in text for text in texts), message


# ---------------------------------------------------------------- the site


@pytest.mark.parametrize("page", sorted((ROOT / "docs/api").glob("*.md")), ids=lambda page: page.stem)
def test_the_reference_lists_names_that_exist(page):
    text = page.read_text()
    module = importlib.import_module(re.search(r"::: (\S+)", text)[1])
    listed = re.findall(r"\w+", re.search(r"members: \[(.*?)\]", text, flags=re.DOTALL)[1])
    assert set(listed) <= set(module.__all__)


def test_the_reference_lists_every_model():
    module = importlib.import_module("lyrics.modeling_lyrics")
    text = (ROOT / "docs/api/modeling.md").read_text()
    assert [name for name in module.__all__ if name not in text] == ["LyricsPreTrainedModel"]


def test_the_reference_lists_every_name_of_the_root():
    text = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    missing = [name for name in importlib.import_module("lyrics").__all__ if name not in text]
    assert missing == ["LyricsPreTrainedModel", "__version__"]


def test_every_page_can_be_reached():
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = {page for entry in navigation for page in ([entry] if isinstance(entry, str) else chain(*entry.values()))}
    assert listed == pages


# ---------------------------------------------------------------- continuous integration


def make_targets():
    return set(re.findall(r"^([a-z][a-z0-9-]*):(?!=)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_well_formed(workflow):
    """What can be known without running it: YAML, triggers, least privilege, steps, and commands that exist."""
    content = yaml.safe_load(workflow.read_text())
    assert content[True]  # YAML 1.1 reads the key `on` as true
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"]
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
        assert all("@" in step["uses"] for step in job["steps"] if "uses" in step)
        commands = "\n".join(step["run"] for step in job["steps"] if "run" in step)
        for line in re.findall(r"\bmake\s+(.+)", commands):
            assert {word for word in line.split() if re.fullmatch(r"[a-z][a-z-]*", word)} <= make_targets()


def test_there_is_a_workflow():
    assert WORKFLOWS


def test_guides_name_make_targets_that_exist():
    for page in GUIDES:
        commands = [*inline_code(page), *chain.from_iterable(map(without_comments, code_blocks(page, "sh")))]
        named = {word[5:].split()[0] for word in commands if re.match(r"make [a-z]", word)}
        assert named <= make_targets(), page.name


def test_pre_commit_is_well_formed():
    content = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in content["repos"] for hook in repository["hooks"]]
    assert {hook["id"] for hook in hooks} >= {"ruff-check", "ruff-format"}
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    ruff = next(repository for repository in content["repos"] if "ruff" in repository["repo"])
    assert ruff["rev"] == f"v{pinned['ruff']}"
