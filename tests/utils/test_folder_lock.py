"""Folder locks: one holder at a time, and the lock of a dead process is taken over."""

import errno
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lyrics.utils import folder_lock
from lyrics.utils.atomic_files import remove_leftovers
from lyrics.utils.folder_lock import FolderLock, FolderLockedError

FILES = [".lock", ".lock.process"]
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
    """Leave the record of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    owner = {"host": socket.gethostname(), "pid": process.pid, "started": "1", "purpose": "x", "since": "y", "id": "z"}
    (folder / ".lock").write_text(json.dumps(owner | changes))


def test_a_second_writer_is_refused(tmp_path):
    with FolderLock(tmp_path, "refining photos"):
        with pytest.raises(FolderLockedError, match=rf"locked by process {os.getpid()} on .*refining photos, since"):
            FolderLock(tmp_path).acquire()
        remove_leftovers(tmp_path)  # does not remove the lock
        assert sorted(os.listdir(tmp_path)) == FILES
    assert os.listdir(tmp_path) == []
    with FolderLock(tmp_path):
        pass


def test_released_after_an_error(tmp_path):
    with pytest.raises(KeyError), FolderLock(tmp_path):
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_killed_holder_is_taken_over(failpoints, tmp_path):
    """At whichever operation the holder is killed; and no file of the lock is left."""
    for run in failpoints.kill_everywhere("with FolderLock(folder): open(folder + '/work', 'w').close()", tmp_path):
        with FolderLock(tmp_path):
            remove_leftovers(tmp_path)
            assert set(os.listdir(tmp_path)) <= {*FILES, "work"}
        assert run.killed or set(os.listdir(tmp_path)) == {"work"}


def test_another_process_with_the_number_of_a_dead_one_does_not_hold_its_lock(tmp_path):
    dead_owner(tmp_path, pid=os.getpid())
    with FolderLock(tmp_path):
        pass


def test_a_lock_of_another_machine_is_not_taken_over(tmp_path):
    dead_owner(tmp_path, host="elsewhere")
    with pytest.raises(FolderLockedError, match=r"on elsewhere \(x, since y\). Wait for it, or delete .*/.lock if it"):
        FolderLock(tmp_path).acquire()
    for content in ("", "null", '{"host": "elsewhere"}'):
        (tmp_path / ".lock").write_text(content)
        with pytest.raises(FolderLockedError, match="does not say by whom"):
            FolderLock(tmp_path).acquire()


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refuse(*paths):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    with FolderLock(tmp_path), pytest.raises(FolderLockedError, match="locked by process"):
        FolderLock(tmp_path).acquire()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    """The record alone excludes others; nobody can know whether its process is alive."""

    def refuse(descriptor, blocking):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folder_lock, "lock_descriptor", refuse)
    with FolderLock(tmp_path), pytest.raises(FolderLockedError, match=r"Wait for it, or delete .*/.lock if it"):
        FolderLock(tmp_path).acquire()
    assert not (tmp_path / ".lock").exists()
    dead_owner(tmp_path)
    with pytest.raises(FolderLockedError, match=r"Wait for it, or delete .*/.lock if it"):
        FolderLock(tmp_path).acquire()


def test_one_of_several_threads_holds_the_lock(tmp_path):
    """A lock is also released by another thread than the one that acquired it."""
    held, most = [], []

    def compete(_):
        done = 0
        while done < 30:
            try:
                with FolderLock(tmp_path):
                    held.append(1)
                    most.append(len(held))
                    held.pop()
                    done += 1
            except FolderLockedError:
                pass

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(compete, range(3)))
        lock = FolderLock(tmp_path)
        threads.submit(lock.acquire).result()
        with pytest.raises(FolderLockedError):
            FolderLock(tmp_path).acquire()
        lock.release()
    assert (len(most), max(most)) == (90, 1)
    assert os.listdir(tmp_path) == []


def test_a_fork_does_not_release_the_lock(tmp_path):
    with FolderLock(tmp_path) as lock:
        child = os.fork()
        if child == 0:
            lock.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert (tmp_path / ".lock").exists()


def test_one_of_several_processes_holds_the_lock(failpoints, tmp_path):
    """Also while a dead lock is taken over: a second holder would find the file `holder`, and raise an error."""
    dead_owner(tmp_path)
    assert failpoints.run(RACE, tmp_path).error is None
    assert os.listdir(tmp_path) == []
