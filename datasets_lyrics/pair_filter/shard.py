"""Filtering of one tar shard in two passes: decide about each sample, then copy those that are kept."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...utils.atomic_files import write_file
from ..mixtures.perceptual_hash import perceptual_hash
from ..sources import IMAGE_EXTENSIONS
from ..webdataset import CAPTION_EXTENSIONS, TarSample, TarShardError, read_shard
from .rules import FilterRules

MAX_PIXELS = 178_956_970
_DRAFT = (72, 64)  # pixels of a JPEG that a hash is computed from; decoding fewer is several times faster


@dataclass(frozen=True)
class FilterTask:
    """Everything that a worker needs to filter any shard.

    Attributes:
        shards: paths or URLs of the shards.
        names: names of the shards below `out`, without an ending.
        out: folder of decisions and of kept samples.
        rules: rules of the filter.
    """

    shards: tuple[str, ...]
    names: tuple[str, ...]
    out: Path
    rules: FilterRules

    def decision_file(self, number: int) -> Path:
        """Return the path of a shard's decisions."""
        return self.out / "decisions" / f"{self.names[number]}.npz"

    def kept_file(self, number: int) -> Path:
        """Return the path of a shard's kept samples."""
        return self.out / f"{self.names[number]}.tar"

    def decide(self, number: int) -> None:
        """Decide about the samples of a shard, and write the decisions, unless they are there already.

        Raises:
            FileNotFoundError: when there is no such shard.
            OSError: when the decisions cannot be written.
        """
        path = self.decision_file(number)
        if path.is_file():
            return
        counts: Counter[str] = Counter()
        kept, hashes = [], []
        for sample in self._samples(number, counts):
            counts["pairs"] += 1
            reason, value = self._judge(sample)
            if reason is None:
                kept.append(sample.index)
                hashes.append(value)
            else:
                counts[reason] += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_file(path) as file:
            np.savez(
                file,
                kept=np.array(kept, np.int64),
                hashes=np.array(hashes, np.uint64),
                counts=np.frombuffer(json.dumps(counts).encode(), np.uint8),
            )

    def copy(self, number: int) -> None:
        """Copy the kept samples of a shard, unless that was done.

        Raises:
            OSError: when they cannot be written.
        """
        path = self.kept_file(number)
        kept = set(load_decisions(self.decision_file(number))[0].tolist())
        if path.is_file() or not kept:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_file(path) as file, tarfile.open(fileobj=file, mode="w") as tar:
            for sample in self._samples(number, Counter()):
                if sample.index in kept:
                    _append(tar, sample)

    def _samples(self, number: int, counts: Counter[str]) -> Iterator[TarSample]:
        """Yield the samples of a shard; damaged ones are counted."""

        def count(error: TarShardError) -> None:
            counts["pairs"] += error.key is not None
            counts["damaged shard" if error.key is None else "damaged sample"] += 1

        yield from read_shard(self.shards[number], on_error=count)

    def _judge(self, sample: TarSample) -> tuple[str | None, int]:
        """Return why a sample is refused, or `None` and the perceptual hash of its image."""
        content, text = sample.first_of(IMAGE_EXTENSIONS), caption_of(sample)
        if content is None:
            return "no image", 0
        if text is None:
            return "no caption", 0
        if reason := self.rules.refuse_text(text):
            return reason, 0
        try:
            with Image.open(io.BytesIO(content)) as picture:
                reason = self.rules.refuse_size(*picture.size)
                if reason is None and picture.width * picture.height > MAX_PIXELS:
                    reason = "image too large"
                if reason is not None or not self.rules.duplicates:
                    return reason, 0
                picture.draft("L", _DRAFT)
                return None, perceptual_hash(picture)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return "unreadable image", 0


def caption_of(sample: TarSample) -> str | None:
    """Return the caption of a sample: its `.txt`, or `caption` in its `.json`."""
    if (content := sample.first_of(CAPTION_EXTENSIONS)) is not None:
        return content.decode("utf-8", "replace")
    try:
        found: Any = json.loads(sample.files.get("json", b"{}"))
    except (ValueError, RecursionError):
        return None
    caption = found.get("caption") if isinstance(found, dict) else None
    return caption if isinstance(caption, str) else None


def load_decisions(path: os.PathLike) -> tuple[np.ndarray, np.ndarray, Counter[str]]:
    """Return the indices of the kept samples, their hashes, and the counts of a shard."""
    with np.load(path) as found:
        return found["kept"], found["hashes"], Counter(json.loads(found["counts"].tobytes()))


def _append(tar: tarfile.TarFile, sample: TarSample) -> None:
    for extension, content in sample.files.items():
        member = tarfile.TarInfo(f"{sample.key}.{extension}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
