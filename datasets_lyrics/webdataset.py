"""Samples of WebDataset tar shards, read as a stream: nothing is extracted, and nothing is believed.

A sample is a run of members that share a key, the path up to the first dot of the file name; what follows the dot is
the extension. Members that could point out of an archive (absolute paths, `..`, links, devices) are refused, and an
archive that was cut is noticed, also where `tarfile` takes the cut for its end.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

from fsspec.core import url_to_fs

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")

_MAX_SHARDS = 10_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,12})\.\.(\d{1,12})")
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", flags=re.DOTALL)  # key, extension
_END = bytes(tarfile.BLOCKSIZE)
_CHUNK = 1 << 16

T = TypeVar("T")


class TarShardError(ValueError):
    """Something is wrong with a tar shard or with one sample of it.

    Attributes:
        shard: path or URL of the tar file.
        key: of the sample, or `None` where the shard as a whole is damaged and reading it ends.
        reason: what is wrong.
    """

    def __init__(self, shard: str, key: str | None, reason: str) -> None:
        super().__init__(f"{shard}: {reason}" if key is None else f"{shard}: sample {key!r} {reason}")
        self.shard, self.key, self.reason = shard, key, reason

    def __reduce__(self) -> tuple[type[TarShardError], tuple[str, str | None, str]]:
        return type(self), (self.shard, self.key, self.reason)


@dataclass(frozen=True)
class TarSample:
    """One sample of a shard.

    Attributes:
        shard: path or URL of the tar file.
        index: position among the samples of the shard, refused ones included.
        key: unique in the shard.
        files: content by extension (lower case, without the first dot).
    """

    shard: str
    index: int
    key: str
    files: dict[str, bytes] = field(repr=False)

    def first_of(self, extensions: Iterable[str]) -> bytes | None:
        """The content with the first of these extensions that the sample has."""
        return next((self.files[name] for name in extensions if name in self.files), None)


def expand_shards(patterns: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """Shards of one or more patterns: braces (`{0000..0099}`, `{a,b}`) in their order, then globs, sorted.

    Args:
        patterns: paths, or URLs that fsspec knows (`s3://`, `hf://`, ...).

    Raises:
        FileNotFoundError: naming a pattern that nothing matches.
        ValueError: naming a shard that is there twice.
    """
    patterns = [patterns] if isinstance(patterns, str | os.PathLike) else patterns
    shards = [shard for pattern in patterns for one in expand_braces(os.fspath(pattern)) for shard in _glob(one)]
    if len(set(shards)) < len(shards):
        seen: set[str] = set()
        twice = next(shard for shard in shards if shard in seen or seen.add(shard))
        raise ValueError(f"Shard {twice} is there twice.")
    return shards


def expand_braces(pattern: str) -> list[str]:
    """`a{08..10}{x,y}` -> `a08x`, `a08y`, `a09x`, ...; numbers keep their leading zeros, other braces stay.

    Raises:
        ValueError: when a range runs backwards, or when there are more than ten million names.
    """
    parts: list[Sequence[str]] = []
    count, end = 1, 0
    for match in _BRACES.finditer(pattern):
        choices = _choices(match.group(1), pattern)
        if choices is None:
            continue
        count *= len(choices)
        if count > _MAX_SHARDS:
            raise ValueError(f"{pattern} stands for more than {_MAX_SHARDS:,} names.")
        parts += [[pattern[end : match.start()]], choices]
        end = match.end()
    return ["".join(names) for names in itertools.product(*parts, [pattern[end:]])]


def read_shard(
    shard: str | os.PathLike,
    start: int = 0,
    require: Sequence[Sequence[str]] = (),
    on_error: Callable[[TarShardError], None] | None = None,
    max_file_size: int = 1 << 30,
) -> Iterator[TarSample]:
    """The samples of a shard, in the order of the file.

    Args:
        shard: path or URL of a tar file, plain or compressed.
        start: skip so many samples. Of those only the headers are read, unless the file is compressed.
        require: extensions that every sample has, such as `[IMAGE_EXTENSIONS, ["txt"]]`: one of each group.
        on_error: called with what is wrong with one sample, which is then left out, and with what ends the shard
            early. By default the first error is raised.
        max_file_size: a larger member is refused, in bytes.

    Raises:
        TarShardError: when the file cannot be read, is cut or damaged; when a sample lacks a required file, has a key
            that was there before, or a member that is refused.
        FileNotFoundError: when there is no such file.
    """
    name = os.fspath(shard)
    report = _raise if on_error is None else on_error
    for sample in _read_samples(name, start, require, max_file_size):
        if isinstance(sample, TarSample):
            yield sample
        else:
            report(sample)


def count_samples(shard: str | os.PathLike) -> int:
    """How many samples a shard has, refused ones included; only headers are read. A cut one has those before the cut.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    name, count = os.fspath(shard), 0
    with suppress(TarShardError), _open(name) as file, _guard(name, lambda: tarfile.open(fileobj=file)) as tar:
        for _ in _groups(tar, name):
            count += 1
    return count


def _raise(error: TarShardError) -> None:
    raise error


def _read_samples(
    name: str, start: int, require: Sequence[Sequence[str]], max_file_size: int
) -> Iterator[TarSample | TarShardError]:
    """Samples, and what is wrong with those that are left out; the last may be what is wrong with the shard."""
    seen: set[str] = set()
    try:
        with _open(name) as file, _guard(name, lambda: tarfile.open(fileobj=file)) as tar:
            for index, (key, members) in enumerate(_groups(tar, name)):
                if index >= start or key in seen:
                    yield _read_sample(tar, name, index, key, members, key in seen, require, max_file_size)
                seen.add(key)
    except TarShardError as error:
        yield error


def _groups(tar: tarfile.TarFile, shard: str) -> Iterator[tuple[str, Iterator[tarfile.TarInfo]]]:
    return itertools.groupby(_members(tar, shard), key=lambda member: _split(member.name)[0])


def _read_sample(
    tar: tarfile.TarFile,
    shard: str,
    index: int,
    key: str,
    members: Iterator[tarfile.TarInfo],
    is_double: bool,
    require: Sequence[Sequence[str]],
    max_file_size: int,
) -> TarSample | TarShardError:
    if is_double:
        return TarShardError(shard, key, "is there twice.")
    files: dict[str, bytes] = {}
    for member in members:
        extension = _split(member.name)[1]
        if reason := _refusal(member, max_file_size):
            return TarShardError(shard, key, f"holds {member.name!r}, which {reason}.")
        if extension in files:
            return TarShardError(shard, key, f"is there twice: it has two files .{extension}.")
        content: Any = tar.extractfile(member)
        files[extension] = _guard(shard, content.read)
    for group in require:
        if not any(extension in files for extension in group):
            wanted, found = " or ".join(f".{name}" for name in group), " ".join(f".{name}" for name in files)
            return TarShardError(shard, key, f"has no file {wanted}, only {found}.")
    return TarSample(shard, index, key, files)


def _members(tar: Any, shard: str) -> Iterator[tarfile.TarInfo]:
    """Every member that belongs to a sample. An archive that stops before its end mark was cut."""
    reader: Any = _LastRead(tar.fileobj)
    tar.fileobj = reader
    while (member := _guard(shard, tar.next)) is not None:
        tar.members.clear()  # tarfile would keep them all
        if not member.isdir() and _split(member.name)[0]:
            yield member
    if tar.offset and reader.last != _END:
        raise TarShardError(shard, None, f"is cut or damaged after {tar.offset:,} bytes.")
    while padding := _guard(shard, lambda: reader.read(_CHUNK)):  # to the end, where a compressed file has its checksum
        if padding.strip(b"\0"):
            raise TarShardError(shard, None, "goes on after its end: archives that were joined are not read.")


def _split(name: str) -> tuple[str, str]:
    """Key and extension; a hidden file, or one without extension, has neither, as in WebDataset."""
    match = _MEMBER.fullmatch(name.removeprefix("./"))
    return (match.group(1), match.group(2).lower()) if match else ("", "")


def _refusal(member: tarfile.TarInfo, max_file_size: int) -> str | None:
    parts = re.split(r"[/\\]", member.name)
    if member.name.startswith(("/", "\\")) or ".." in parts or re.match("[A-Za-z]:", member.name):
        return "points out of the archive"
    if not member.isreg():
        return "is a link" if member.issym() or member.islnk() else "is no regular file"
    if member.size > max_file_size:
        return f"has {member.size:,} bytes, and the limit is {max_file_size:,}"
    return None


class _LastRead:
    """A file that knows what was read last: `tarfile` does not say why it stopped."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.last = b""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self.last = self.file.read(size)
        return self.last

    def close(self) -> None:
        self.file.close()


def _guard(shard: str, read: Callable[[], T]) -> T:
    """Damaged archives fail in the ways of `tarfile`, of each compression, and of the file system."""
    try:
        return read()
    except Exception as error:
        raise TarShardError(shard, None, f"is cut or damaged, or cannot be read: {error}") from error


def _open(name: str) -> Any:
    if "://" not in name:
        return open(name, "rb")
    file_system, path = url_to_fs(name)
    return file_system.open(path, "rb")


def _glob(pattern: str) -> list[str]:
    if "://" in pattern:
        file_system, path = url_to_fs(pattern)
        found = [file_system.unstrip_protocol(one) for one in sorted(file_system.glob(path))]
    else:
        found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise FileNotFoundError(f"No shard matches {pattern}.")
    return found


def _choices(inside: str, pattern: str) -> Sequence[str] | None:
    """What stands for a pair of braces, or `None` when they are part of a name."""
    if (match := _RANGE.fullmatch(inside)) is None:
        return inside.split(",") if "," in inside else None
    first, last = match.groups()
    if int(first) > int(last):
        raise ValueError(f"{pattern}: the range {inside} runs backwards.")
    if int(last) - int(first) >= _MAX_SHARDS:
        raise ValueError(f"{pattern} stands for more than {_MAX_SHARDS:,} names.")
    width = len(first) if first.startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
