"""WebDataset tar shards: rows for training, images for refinement, and the guarded reader of both.

A sample is a run of members that share a key, the path up to the first dot of the file name. The rest of the name is
the extension. Shards are read as streams and never extracted. Members that could point out of an archive (absolute
paths, `..`, links, devices) are refused. A cut archive is noticed, also where `tarfile` mistakes the cut for its end.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

from fsspec.core import url_to_fs

from .path_guard import PathGuard
from .sources import IMAGE_EXTENSIONS, Item, Source, as_key, hash_names

CAPTION_EXTENSIONS = ("txt", "caption")

_TAR = re.compile(r"\.(tar|tgz|tar\.(gz|bz2|xz|zst))\}?$", flags=re.IGNORECASE)
MAX_FILE_SIZE = 1 << 30  # bytes of a member
_TARS_COUNTED = 8  # of which an estimate is made
_MAX_SHARDS = 10_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,12})\.\.(\d{1,12})")
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", flags=re.DOTALL)  # key, extension
_END = bytes(tarfile.BLOCKSIZE)
_CHUNK = 1 << 16

T = TypeVar("T")


@dataclass(eq=False)
class TarShardError(ValueError):
    """A tar shard or one of its samples cannot be used.

    Attributes:
        shard: str, path or URL of the tar file.
        key: str, key of the sample; `None` where the shard itself is damaged and reading it ends.
        reason: str, the rest of the message.
    """

    shard: str
    key: str | None
    reason: str

    def __str__(self) -> str:
        sample = "" if self.key is None else f"sample {self.key!r} "
        return f"{self.shard}: {sample}{self.reason}"


@dataclass(frozen=True)
class TarSample:
    """A sample of a shard.

    Attributes:
        shard: str, path or URL of the tar file.
        index: int, position among the samples of the shard, refused ones included.
        key: str, unique in the shard.
        files: contents by extension (lower case, without the first dot).
    """

    shard: str
    index: int
    key: str
    files: dict[str, bytes] = field(repr=False)

    def first_of(self, extensions: Iterable[str]) -> bytes | None:
        """Return the content of the first of these extensions that the sample has."""
        return next((self.files[name] for name in extensions if name in self.files), None)


def expand_shards(patterns: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """Return the files of one or more patterns: braces (`{0000..0099}`, `{a,b}`) in their order, then sorted globs.

    Args:
        patterns: paths, or URLs that fsspec knows (`s3://`, `hf://`, ...).

    Raises:
        FileNotFoundError: naming a pattern that matches nothing.
        ValueError: naming a file that appears twice.
    """
    patterns = [patterns] if isinstance(patterns, str | os.PathLike) else patterns
    shards = [shard for pattern in patterns for one in expand_braces(os.fspath(pattern)) for shard in _glob(one)]
    if twice := [shard for shard, count in Counter(shards).items() if count > 1]:
        raise ValueError(f"Shard {twice[0]} is there twice.")
    return shards


def expand_braces(pattern: str) -> list[str]:
    """Expand braces: `a{08..10}{x,y}` gives `a08x`, `a08y`, `a09x`, ...; zeros are kept, and other braces stay.

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
    max_file_size: int = MAX_FILE_SIZE,
) -> Iterator[TarSample]:
    """Yield the samples of a shard, in the order of the file.

    Args:
        shard: path or URL of a tar file, plain or compressed.
        start: int, samples to skip. Only their headers are read, unless the file is compressed.
        require: groups of extensions, such as `[IMAGE_EXTENSIONS, ["txt"]]`; every sample needs one of each group.
        on_error: function, called with the error of a sample, which is then left out, and with the error that ends the
            shard early. By default the first error is raised.
        max_file_size: int, bytes; a larger member is refused.

    Raises:
        TarShardError: when the file cannot be read, is cut or damaged; when a sample lacks a required file, repeats a
            key, or has a member that is refused.
        FileNotFoundError: when there is no such file.
    """
    for sample in _samples_and_errors(os.fspath(shard), start, require, max_file_size):
        if isinstance(sample, TarSample):
            yield sample
        elif on_error is None:
            raise sample
        else:
            on_error(sample)


def count_samples(shard: str | os.PathLike) -> int:
    """Return the number of samples in a shard, refused ones included; in a cut one, of those before the cut.

    Only headers are read.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    name, count = os.fspath(shard), 0
    with suppress(TarShardError), _open(name) as file, _guard(name, lambda: tarfile.open(fileobj=file)) as tar:
        for _ in _groups(tar, name):
            count += 1
    return count


class TarSource:
    """Rows of WebDataset tar shards: an image, a caption as `.txt`, or a `.json` with further columns.

    Args:
        shards: paths, patterns (`shard-{0000..0099}.tar`, `*.tar`) or URLs.
        image_column, caption_column: names of the columns that hold the image and the `.txt`.
        guard: rule for paths in the `.json`; by default they are refused.
    """

    def __init__(
        self,
        shards: str | os.PathLike | Sequence[str | os.PathLike],
        image_column: str = "image",
        caption_column: str = "caption",
        guard: PathGuard | None = None,
    ) -> None:
        self.names: Sequence[str] = expand_shards(shards)
        self.image_column, self.caption_column = image_column, caption_column
        self.guard = guard or PathGuard.below(None)

    def read(self, shard: int, start: int) -> Iterator[tuple[str, Mapping[str, Any] | Exception]]:
        """Yield key and row, or key and error, from the `start`-th sample of a shard on; see `ShardSource`."""
        required = (IMAGE_EXTENSIONS, (*CAPTION_EXTENSIONS, "json"))
        for sample in _samples_and_errors(self.names[shard], start, required):
            yield sample.key or "", self._row(sample) if isinstance(sample, TarSample) else sample

    def _row(self, sample: TarSample) -> Mapping[str, Any] | Exception:
        try:
            row = dict(json.loads(sample.files.get("json", b"{}")))
        except (ValueError, TypeError, RecursionError) as error:
            return TarShardError(sample.shard, sample.key, f"has a damaged .json: {error}")
        try:
            if (caption := sample.first_of(CAPTION_EXTENSIONS)) is not None:
                row[self.caption_column] = caption.decode()
            return self.guard.check_row(row) | {self.image_column: sample.first_of(IMAGE_EXTENSIONS)}
        except ValueError as error:
            return TarShardError(sample.shard, sample.key, f"has a row that cannot be used: {error}")


class TarImages(Source):
    """Images of WebDataset tar shards, one shard of the store for each; keys are `SHARD/KEY`.

    SHARD is the tar file's path without its ending, below the last folder of `pattern` that has neither braces nor
    wildcards.

    Args:
        pattern: path or URL, with braces and wildcards; see `expand_shards`.
        extensions: extensions of the image in a sample; the first one that exists is taken.
        limit: int, samples to take; as many headers are read at once.
    """

    def __init__(self, pattern: str, extensions: Sequence[str] = IMAGE_EXTENSIONS, limit: int | None = None) -> None:
        pattern = pattern if "://" in pattern else os.path.abspath(pattern)
        self.extensions, self.paths = extensions, expand_shards(pattern)
        self.total, self.last = None, None
        if limit is not None:
            self.total, self.paths, self.last = _first_samples(self.paths, limit)
        self.shards = len(self.paths)
        root = re.split(r"[{*?\[]", pattern)[0]
        self.root = root[: root.rfind("/") + 1]

    def describe(self) -> dict[str, Any]:
        """Return the number of tar files and the checksum of their names."""
        names = [as_key(self._name(path)) for path in self.paths]
        return {"kind": "tar", "tars": len(names), "names_sha256": hash_names(names), "limit": self.total}

    def estimate_total(self) -> int | None:
        """Return about how many samples there are, from the headers of a few tar files, spread over all."""
        if self.total is not None:
            return self.total
        paths = self.paths[:: max(1, len(self.paths) // _TARS_COUNTED)]
        return round(sum(map(count_samples, paths)) / len(paths) * len(self.paths))

    def items(self, shard: int) -> Iterator[Item]:
        """Yield the images of a shard; a sample or a shard that cannot be used is an item with an error."""
        path = self.paths[shard]
        name, stop = self._name(path), self.last if shard == self.shards - 1 else None
        for sample in _samples_and_errors(path, require=[self.extensions]):
            key = name if sample.key is None else f"{name}/{sample.key}"
            if isinstance(sample, TarShardError):
                yield Item(as_key(key), None, sample.shard, str(sample))
            elif stop is not None and sample.index >= stop:
                return
            else:
                yield Item(as_key(key), sample.first_of(self.extensions), f"{path}: {sample.key}")

    def path_starts(self) -> Sequence[str]:
        """Return the folder that all tar files have in common."""
        return [self.root] if self.root.strip("/") else []

    def _name(self, path: str) -> str:
        return _TAR.sub("", path.removeprefix(self.root))


def is_tar_pattern(place: str) -> bool:
    """Return whether a path or URL names tar shards."""
    without_query = place.partition("?")[0] if "://" in place else place  # in a path, `?` is a wildcard
    return any(_TAR.search(one) for one in (place, without_query))


def _samples_and_errors(
    name: str, start: int = 0, require: Sequence[Sequence[str]] = (), max_file_size: int = MAX_FILE_SIZE
) -> Iterator[TarSample | TarShardError]:
    """Yield samples, and the errors of those that are left out; the last one may be the error of the shard."""
    seen: set[str] = set()
    try:
        with _open(name) as file, _guard(name, lambda: tarfile.open(fileobj=file)) as tar:
            for index, (key, members) in enumerate(_groups(tar, name)):
                if index >= start and key in seen:
                    yield TarShardError(name, key, "is there twice.")
                elif index >= start:
                    yield _read_sample(tar, name, index, key, members, require, max_file_size)
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
    require: Sequence[Sequence[str]],
    max_file_size: int,
) -> TarSample | TarShardError:
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
    """Yield every member that belongs to a sample. An archive that stops before its end mark was cut."""
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
    """Return key and extension; as in WebDataset, both are empty for a hidden file and for one without extension."""
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
    """A file that remembers the last read, because `tarfile` does not say why it stopped."""

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
    """Call `read`, and turn the many errors of `tarfile`, compressions and file systems into one."""
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
        raise FileNotFoundError(f"There is no file {pattern}.")
    return found


def _choices(inside: str, pattern: str) -> Sequence[str] | None:
    """Return the names that a pair of braces stands for, or `None` when the braces are part of a name."""
    if (match := _RANGE.fullmatch(inside)) is None:
        return inside.split(",") if "," in inside else None
    first, last = match.groups()
    if int(first) > int(last):
        raise ValueError(f"{pattern}: the range {inside} runs backwards.")
    if int(last) - int(first) >= _MAX_SHARDS:
        raise ValueError(f"{pattern} stands for more than {_MAX_SHARDS:,} names.")
    width = len(first) if first.startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]


def _first_samples(paths: list[str], limit: int) -> tuple[int, list[str], int | None]:
    """Return the number of samples in the first shards, at most `limit`; those shards; and the end in the last one."""
    count = 0
    for number, path in enumerate(paths):
        samples = count_samples(path)
        if count + samples >= limit:
            return limit, paths[: number + 1], limit - count
        count += samples
    return count, paths, None
