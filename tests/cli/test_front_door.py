"""The first thing that a user runs: help, version and wrong arguments, at once and without torch."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import lyrics
from lyrics_cli.main import COMMANDS, build_parser, main

NAMES = [command.__name__.rpartition(".")[2].replace("_", "-") for command in COMMANDS]

WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "numpy", "huggingface_hub"):
    sys.modules[name] = None  # an import of it fails
from lyrics_cli.main import main
codes = []
for line in sys.stdin.read().splitlines():
    try:
        codes.append(main(line.split()))
    except SystemExit as end:
        codes.append(end.code)
assert "lyrics" not in sys.modules
print("codes", *codes)
"""


def run_without_torch(*lines):
    """Exit codes, output and error output of several command lines in one interpreter that has no torch."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    out, _, codes = done.stdout.rpartition("codes ")
    return [int(code) for code in codes.split()], out, done.stderr


def test_help_and_version_need_no_torch():
    codes, out, _ = run_without_torch("--version", "--help", *(f"{name} --help" for name in NAMES))
    assert codes == [0] * (2 + len(NAMES))
    assert f"lyrics {version('ziya-lyrics')}" in out
    assert all(f"usage: lyrics {name}" in out for name in NAMES)
    assert "smoke" in out  # the recipes are listed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "arguments are required: command"),
        ("paint", "invalid choice: 'paint'"),
        ("ask scene.png", "arguments are required: QUESTION"),
        ("ask scene.png Why? --max-new-tokens 0", "argument --max-new-tokens: must be at least 1, got 0"),
        ("ask scene.png Why? --dtype int3", "invalid choice: 'int3'"),
        ("refine a.png --batch-size 0", "argument --batch-size: must be at least 1, got 0"),
        ("refine-dataset photos --out store --limit 0", "argument --limit: must be at least 1, got 0"),
        ("refine a.png --batch-size many", "argument --batch-size: must be a whole number, got 'many'"),
        ("refine-dataset photos --out store --max-failure-rate nan", "must lie in [0, 1], got nan"),
        ("refine-dataset photos --out store --max-failure-rate 5%", "must be a number, got '5%'"),
        ("merge adapter --out merged --colour red", "unrecognized arguments: --colour red"),
    ],
)
def test_wrong_arguments_need_no_torch(line, message):
    codes, out, error = run_without_torch(line or "--")
    assert codes == [2]
    assert message in error
    assert not out


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "lyrics", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"lyrics {lyrics.__version__}"


def test_every_command_explains_itself():
    """A description, an example, and a help text for every option."""
    actions = build_parser()._subparsers._group_actions[0]
    for name, parser in actions.choices.items():
        assert parser.description, name
        assert f"lyrics {name}" in parser.epilog, name
        assert not [action.dest for action in parser._actions if not action.help], name


def test_a_users_mistake_is_one_line(capsys, tmp_path):
    assert main(["ask", str(tmp_path / "none.png"), "Why?"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 2  # which model is used, and what is wrong
    assert error[1].startswith("lyrics ask: error: ")
