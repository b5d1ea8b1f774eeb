"""The fail points themselves: what they do not see, no other test is killed at."""

import os
import shutil

import pytest

from .failpoints import Failpoints, full_disk

CODE = """
import os, pathlib, shutil
folder = pathlib.Path(folder)
(folder / "a").write_text("1")
os.replace(folder / "a", folder / "b")
os.link(folder / "b", folder / "c")
os.mkdir(folder / "d")
descriptor = os.open(folder / "d/f", os.O_CREAT | os.O_WRONLY)
os.close(descriptor)
(folder / "d/f").read_text()
os.truncate(folder / "b", 0)
shutil.rmtree(folder / "d")
pathlib.Path(outside).write_text("not below the folder")
"""
OPERATIONS = [
    "open a", "os.rename a b", "os.link b c", "os.mkdir d", "open d/f", "os.truncate b", "os.remove d/f", "os.rmdir d"
]  # fmt: skip


def test_every_operation_kills_once(tmp_path):
    folder = tmp_path / "folder"

    def reset():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    with Failpoints("import json") as failpoints:
        names = {"outside": str(tmp_path / "outside")}
        runs = list(failpoints.kill_everywhere(CODE, folder, reset, **names))
        assert [run.killed for run in runs] == [True] * len(OPERATIONS) + [False]
        assert [run.operation for run in runs[:-1]] == runs[-1].operations == OPERATIONS
        reset()
        assert failpoints.run(CODE, folder, kill_at=2, **names).operation == "os.rename a b"
        assert os.listdir(folder) == ["a"], "killed before the operation"
        assert "ZeroDivisionError" in failpoints.run("1 / 0", folder).error
        assert failpoints.run("json.dumps(1)", folder).error is None


def test_full_disk(tmp_path):
    with full_disk(1000), pytest.raises(OSError, match="File too large"):
        (tmp_path / "large").write_bytes(bytes(2000))
    (tmp_path / "large").write_bytes(bytes(2000))
