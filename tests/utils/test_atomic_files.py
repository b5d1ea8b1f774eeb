"""Atomic writes: a reader sees the old content or the new, whatever happens to the writer."""

import errno
import hashlib
import os
import shutil

import pytest

from lyrics.utils.atomic_files import is_aside, remove_folder, remove_leftovers, sha256_of, write_file, write_folder

from ..failpoints import full_disk

FOLDER = {"a": b"1", "b/c": b"2" * 5000}
WRITE_FOLDER = """
with write_folder(f"{folder}/new") as new:
    os.mkdir(new / "b")
    for name, content in (("a", b"1"), ("b/c", b"2" * 5000)):
        with open(new / name, "wb") as file:
            file.write(content)
"""


def contents(folder):
    files = [os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return {os.path.relpath(file, folder): open(file, "rb").read() for file in files}


def test_a_file_is_old_or_new_when_its_writer_is_killed(failpoints, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = set()
    for run in failpoints.kill_everywhere('with write_file(f"{folder}/file") as file: file.write(b"new")', tmp_path):
        seen.add(path.read_bytes())
        assert all(name == "file" or is_aside(name) for name in os.listdir(tmp_path))
        assert path.read_bytes() == (b"old" if run.killed else b"new")
        remove_leftovers(tmp_path)
    assert seen == {b"old", b"new"}
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_is_complete_or_absent_when_its_writer_is_killed(failpoints, tmp_path):
    for run in failpoints.kill_everywhere(WRITE_FOLDER, tmp_path):
        assert (tmp_path / "new").exists() != run.killed
        if not run.killed:
            assert contents(tmp_path / "new") == FOLDER
        remove_leftovers(tmp_path)
        assert os.listdir(tmp_path) == ([] if run.killed else ["new"])


def test_a_folder_is_complete_or_absent_when_its_removal_is_killed(failpoints, tmp_path):
    def reset():
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        assert failpoints.run(WRITE_FOLDER, tmp_path).error is None

    for run in failpoints.kill_everywhere('remove_folder(f"{folder}/new")', tmp_path, reset):
        if (tmp_path / "new").exists():
            assert run.killed
            assert contents(tmp_path / "new") == FOLDER
        remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("written", ["file", "folder"])
@pytest.mark.parametrize("error", ["raised", "full disk"])
def test_an_error_leaves_the_old_content(tmp_path, written, error):
    """Whether the disk is full in the block or at its end, the error names the file, and no hidden file is left."""
    path = tmp_path / "thing"
    if written == "file":
        path.write_bytes(b"old")
    expected = pytest.raises(KeyError) if error == "raised" else pytest.raises(OSError, match="thing")
    for size in (2_000, 2_000_000):  # the smaller one fits the buffer
        with full_disk(1000), expected as caught:
            if written == "file":
                with write_file(path) as file:
                    file.write(bytes(size if error == "full disk" else 10))
                    if error == "raised":
                        raise KeyError
            else:
                with write_folder(path) as folder, open(folder / "large", "wb", buffering=0) as file:
                    if error == "raised":
                        raise KeyError
                    while True:
                        file.write(bytes(size))
        assert error == "raised" or caught.value.errno == errno.EFBIG
        assert contents(tmp_path) == ({"thing": b"old"} if written == "file" else {})


def test_only_empty_folders_are_replaced(tmp_path):
    with write_folder(tmp_path / "new") as folder:
        (folder / "a").write_text("1")
    with pytest.raises(FileExistsError, match="new exists and is not an empty folder"), write_folder(tmp_path / "new"):
        pass
    remove_folder(tmp_path / "new")
    (tmp_path / "new").mkdir()
    with write_folder(tmp_path / "new") as folder:
        (folder / "b").write_text("2")
    assert contents(tmp_path) == {"new/b": b"2"}


def test_text_and_long_names(tmp_path):
    """A name of the greatest length, in letters of several bytes, can be written too."""
    path = tmp_path / ("é" * 127)
    with write_file(path, "w", encoding="utf-8") as file:
        file.write("日本")
    assert path.read_text("utf-8") == "日本"
    assert os.stat(path).st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()
