"""Platforms without POSIX modules, such as Windows."""

import pytest

from lyrics.utils import atomic_files


@pytest.fixture
def windows(monkeypatch):
    """File operations that behave as on Windows: no folder can be opened, and only writable files can be synced."""

    class Windows:
        name = "nt"

        def __getattr__(self, name):
            return getattr(atomic_files_os, name)

        def open(self, path, flags):
            if atomic_files_os.path.isdir(path):
                raise PermissionError(13, "Permission denied", path)
            assert flags & atomic_files_os.O_RDWR
            return atomic_files_os.open(path, flags)

        def replace(self, source, target):
            if atomic_files_os.path.isdir(target):
                raise PermissionError(13, "Access is denied", target)
            atomic_files_os.replace(source, target)

    atomic_files_os = atomic_files.os
    monkeypatch.setattr(atomic_files, "os", Windows())


def test_atomic_writes_on_windows(windows, tmp_path):
    with atomic_files.write_file(tmp_path / "file", "w", encoding="utf-8") as file:
        file.write("content")
    (tmp_path / "folder").mkdir()
    with atomic_files.write_folder(tmp_path / "folder") as folder:
        (folder / "a").write_text("1")
    assert (tmp_path / "file").read_text() == "content"
    assert (tmp_path / "folder" / "a").read_text() == "1"
    atomic_files.remove_folder(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
