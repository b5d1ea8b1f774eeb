"""F19: two writers never hold one folder, and a dead one does not hold it for ever."""

import json
import os
import socket
import subprocess
import sys

import pytest

from lyrics.refinement import FolderLock, FolderLockedError, remove_leftovers

RACE = """
def compete():
    held = 0
    while held < 50:
        try:
            with FolderLock(folder):
                open(folder + "/holder", "x").close()
                os.remove(folder + "/holder")
                held += 1
        except FolderLockedError:
            pass

children = []
for _ in range(3):
    if not (child := os.fork()):
        status = 1
        try:
            compete()
            status = 0
        finally:
            os._exit(status)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
"""


def dead_owner(folder, **changes):
    """A lock whose process has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    owner = {"host": socket.gethostname(), "pid": process.pid, "started": "1", "purpose": "x", "since": "y", "id": "z"}
    (folder / ".lock").write_text(json.dumps(owner | changes))


def test_a_second_writer_is_refused(tmp_path):
    with FolderLock(tmp_path, "refining photos"):
        with pytest.raises(FolderLockedError, match=rf"locked by process {os.getpid()} on .*refining photos, since"):
            FolderLock(tmp_path).acquire()
        remove_leftovers(tmp_path)  # the lock is no leftover
        assert os.listdir(tmp_path) == [".lock"]
    assert os.listdir(tmp_path) == []
    with FolderLock(tmp_path):
        pass


def test_released_after_an_error(tmp_path):
    with pytest.raises(KeyError), FolderLock(tmp_path):
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_killed_at_every_operation(failpoints, tmp_path):
    """Whenever its holder dies, the lock can be taken; and nothing is left behind."""
    for run in failpoints.kill_everywhere("with FolderLock(folder): open(folder + '/work', 'w').close()", tmp_path):
        with FolderLock(tmp_path):
            remove_leftovers(tmp_path)
            assert set(os.listdir(tmp_path)) <= {".lock", "work"}
        assert run.killed or set(os.listdir(tmp_path)) == {"work"}


def test_the_number_of_a_dead_process_is_used_again(tmp_path):
    dead_owner(tmp_path, pid=os.getpid())
    with FolderLock(tmp_path):
        pass


def test_elsewhere_nobody_knows(tmp_path):
    dead_owner(tmp_path, host="elsewhere")
    with pytest.raises(FolderLockedError, match=r"on elsewhere \(x, since y\). Wait for it, or delete .*/.lock if it"):
        FolderLock(tmp_path).acquire()
    (tmp_path / ".lock").write_text("")
    with pytest.raises(FolderLockedError, match="does not say by whom"):
        FolderLock(tmp_path).acquire()


def test_without_hard_links(tmp_path, monkeypatch):
    def refuse(*paths):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    with FolderLock(tmp_path), pytest.raises(FolderLockedError, match="locked by process"):
        FolderLock(tmp_path).acquire()
    assert os.listdir(tmp_path) == []


def test_a_fork_does_not_release(tmp_path):
    with FolderLock(tmp_path) as lock:
        child = os.fork()
        if child == 0:
            lock.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert (tmp_path / ".lock").exists()


def test_of_several_processes_one_holds_it(failpoints, tmp_path):
    """Never two at a time, in taking over too: the second would find the file `holder`, and end with an error."""
    dead_owner(tmp_path)
    assert failpoints.run(RACE, tmp_path).error is None
    assert os.listdir(tmp_path) == []
