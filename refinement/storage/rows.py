"""Rows of a store: conversion to Arrow record batches, and reading of single rows.

A row is read through numpy views of the batch's buffers, which stay in the memory-mapped file: that takes 35 us for 16
objects of 260 numbers, and slices of pyarrow take 57. Its CRC-32 is checked, so that a damaged row is an error.
"""

from __future__ import annotations

import itertools
import json
import operator
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...processing_lyrics import VisualObjects
from ...utils.optional_imports import import_optional
from .errors import StoreError
from .pixels import PixelFormat

METADATA = b"lyrics_store"  # in the schema of every shard
HASH_SIZE = 32
PIXEL_CHECKSUM = "pixels_checksum"  # apart, so that objects are checked without reading pixels


@dataclass(frozen=True)
class RowFormat:
    """Format that all rows of a store have in common.

    Attributes:
        fingerprint: str, fingerprint of the refiner.
        region_feature_type: str, `"mask"` or `"detection"`.
        region_feature_size: int, width of a region feature.
        masks: bool, whether rows contain masks.
        pixels: size and resampling of the resized pixels that rows contain, or `None` if they contain none.
        rows_per_batch: int, rows of a record batch, except the last one of a shard; a writer keeps them in memory.
    """

    fingerprint: str
    region_feature_type: str
    region_feature_size: int
    masks: bool = False
    rows_per_batch: int = 256  # 2 MB of 16 objects each; 120 MB of "detection" features; 39 MB of 224 x 224 pixels
    pixels: PixelFormat | None = None

    def schema(self) -> Any:
        """Return the columns of a shard, a `pyarrow.Schema`."""
        pa = import_optional("pyarrow")
        features = pa.list_(pa.float16(), self.region_feature_size)
        size = pa.list_(pa.int32(), 2)
        fields = {
            "key": pa.string(),
            "image_hash": pa.binary(HASH_SIZE),
            "file_sha256": pa.binary(HASH_SIZE),
            "width": pa.int32(),
            "height": pa.int32(),
            "tags": pa.list_(pa.string()),
            "labels": pa.list_(pa.string()),
            "boxes": pa.list_(pa.list_(pa.float32(), 4)),
            "scores": pa.list_(pa.float32()),
            "region_features": pa.list_(features),
            **({"mask_size": size, "mask_runs": pa.list_(pa.list_(pa.uint32()))} if self.masks else {}),
            **({} if self.pixels is None else {"pixels": pa.binary(self.pixels.bytes), PIXEL_CHECKSUM: pa.uint32()}),
            "checksum": pa.uint32(),
        }
        return pa.schema(list(fields.items()), metadata={METADATA: json.dumps(self.to_dict(), sort_keys=True).encode()})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON holds them; without pixels they are those of the first versions."""
        values = asdict(self)
        return values if self.pixels is not None else {name: values[name] for name in values if name != "pixels"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RowFormat:
        """Return the format that `to_dict` describes.

        Raises:
            TypeError, ValueError: when the entries are not those of a format.
        """
        return cls(**{**values, "pixels": PixelFormat.from_dict(values.get("pixels"))})

    @classmethod
    def of_schema(cls, schema: Any) -> RowFormat:
        """Return the row format of a shard with this `pyarrow.Schema`.

        Raises:
            ValueError: when it is not the schema of a shard.
        """
        found = cls.from_dict(json.loads(schema.metadata.get(METADATA, b"{}"))) if schema.metadata else None
        if found is None or not found.schema().equals(schema):
            raise ValueError("has other columns than a shard of a store.")
        return found


@dataclass(frozen=True)
class Row:
    """Row of a store: one image and its visual objects.

    Attributes:
        key: str, name of the image in its source.
        image_hash: 32 bytes, see `hash_picture`.
        file_sha256: 32 bytes, or `None` without a file.
        width: int, pixels of the upright image.
        height: int, pixels of the upright image.
        objects: visual objects, as `prepare_objects` returns them.
        pixels: resized pixels, uint8 array of shape (height, width, 3), or `None`; two rows are compared without them.
    """

    key: str
    image_hash: bytes
    file_sha256: bytes | None
    width: int
    height: int
    objects: VisualObjects
    pixels: np.ndarray | None = field(default=None, compare=False)


def prepare_objects(objects: VisualObjects, row_format: RowFormat) -> VisualObjects:
    """Return visual objects as a row holds them: region features in half precision, masks only if the store has them.

    Raises:
        ValueError: when the region features have another width, or values beyond the range of half precision.
    """
    width, features = row_format.region_feature_size, objects.region_features
    if features.size and features.shape[1] != width:
        raise ValueError(f"the region features have width {features.shape[1]}, but this store's have {width}.")
    with np.errstate(over="ignore"):
        half = features.astype(np.float16).reshape(-1, width)
    if not np.isfinite(half).all():
        raise ValueError("the region features hold numbers beyond the range of half precision.")
    masks = objects.masks
    if row_format.masks and masks is None:
        masks = np.zeros((len(objects), 0, 0), bool)
    return VisualObjects(
        objects.labels, objects.boxes, objects.scores, half, masks if row_format.masks else None, objects.tags
    )


def build_batch(rows: Sequence[Row], row_format: RowFormat) -> Any:
    """Return the rows as one `pyarrow.RecordBatch`, with their checksums."""
    pa, schema = import_optional("pyarrow"), row_format.schema()
    objects = [row.objects for row in rows]
    values = {
        name: [getattr(row, name) for row in rows] for name in ("key", "image_hash", "file_sha256", "width", "height")
    }
    values |= {name: [getattr(one, name) for one in objects] for name in ("tags", "labels")}
    columns: dict[str, Any] = {name: pa.array(listed, schema.field(name).type) for name, listed in values.items()}
    columns["boxes"] = _list_array([one.boxes for one in objects], np.float32, 4)
    columns["scores"] = _list_array([one.scores for one in objects], np.float32, None)
    features = [one.region_features for one in objects]
    columns["region_features"] = _list_array(features, np.float16, row_format.region_feature_size)
    if row_format.masks:
        masks: list[Any] = [one.masks for one in objects]
        sizes = pa.array(np.array([mask.shape[1:] for mask in masks], np.int32).reshape(-1))
        columns["mask_size"] = pa.FixedSizeListArray.from_arrays(sizes, 2)
        runs = [[encode_mask(one) for one in mask] for mask in masks]
        columns["mask_runs"] = pa.array(runs, schema.field("mask_runs").type)
    if row_format.pixels is not None:
        pixels: list[Any] = [row.pixels for row in rows]
        content = pa.py_buffer(b"".join(one.tobytes() for one in pixels))
        kind = schema.field("pixels").type
        columns["pixels"] = pa.FixedSizeBinaryArray.from_buffers(kind, len(rows), [None, content])
        columns[PIXEL_CHECKSUM] = pa.array([zlib.crc32(one.tobytes()) for one in pixels], pa.uint32())
    view = BatchView(columns, row_format)
    columns["checksum"] = pa.array([view.compute_checksum(index) for index in range(len(rows))], pa.uint32())
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _list_array(values: Sequence[np.ndarray], dtype: Any, width: int | None) -> Any:
    """Return arrays of shape (n, width) or (n,) as one Arrow array of lists, with lists of `width` inside if given."""
    pa = import_optional("pyarrow")
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    empty = np.zeros(0, dtype)
    flat = pa.array(np.concatenate([empty, *(np.asarray(value, dtype).reshape(-1) for value in values)]))
    inner = flat if width is None else pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.ListArray.from_arrays(pa.array(offsets), inner)


class BatchView:
    """Reader of the single rows of a record batch.

    Attributes:
        hashes: uint8 array of shape (rows, 32), image hashes.
        files: uint8 array of shape (rows, 32), SHA-256 of files; without meaning where a row has none.

    Args:
        columns: `pyarrow.RecordBatch`, or its columns by name.
        row_format: row format of the store.

    Raises:
        ValueError: when buffers are missing or too short.
    """

    def __init__(self, columns: Any, row_format: RowFormat) -> None:
        named: Any = columns if isinstance(columns, Mapping) else dict(zip(columns.schema.names, columns, strict=True))
        self.format = row_format
        self._key = _Strings(named["key"])
        self.hashes = _fixed_bytes(named["image_hash"])
        self.files, self._has_file = _fixed_bytes(named["file_sha256"]), named["file_sha256"].is_valid().to_numpy(False)
        self._sizes = np.stack([named["width"].to_numpy(), named["height"].to_numpy()], axis=1)
        self._tags, self._labels = _StringLists(named["tags"]), _StringLists(named["labels"])
        self._boxes, self._scores = _Lists(named["boxes"], 4), _Lists(named["scores"], 1)
        self._features = _Lists(named["region_features"], row_format.region_feature_size)
        if row_format.masks:
            self._mask_sizes = named["mask_size"].values.to_numpy().reshape(-1, 2)
            self._masks, self._runs = _offsets(named["mask_runs"]), _Lists(named["mask_runs"].values, 1)
        if row_format.pixels is not None:
            sides = (row_format.pixels.height, row_format.pixels.width, 3)
            content = np.frombuffer(named["pixels"].buffers()[1], np.uint8, len(self) * row_format.pixels.bytes)
            self._pixels, self._pixel_checksums = content.reshape(-1, *sides), named[PIXEL_CHECKSUM].to_numpy()
        self._checksums = named["checksum"].to_numpy() if "checksum" in named else None

    def __len__(self) -> int:
        return len(self.hashes)

    def key(self, index: int) -> str:
        """Return the key of a row, unchecked."""
        return str(self._key[index], "utf-8")

    def hash(self, index: int) -> bytes:
        """Return the image hash of a row, unchecked."""
        return self.hashes[index].tobytes()

    def file_sha256(self, index: int) -> bytes | None:
        """Return the SHA-256 of the file of a row, unchecked; `None` without a file."""
        return self.files[index].tobytes() if self._has_file[index] else None

    def object_counts(self) -> np.ndarray:
        """Return the number of objects of each row, int array of shape (rows,)."""
        return np.diff(np.asarray(self._scores.offsets))

    def labels(self) -> Iterator[str]:
        """Return the labels of all rows."""
        return itertools.chain.from_iterable(_texts(*self._labels.read(index)) for index in range(len(self)))

    def row(self, index: int, masks: bool = False, pixels: bool = False) -> Row:
        """Return a row after checking its checksum.

        Args:
            index: int, place of the row in the batch.
            masks: bool, whether to decode the masks.
            pixels: bool, whether to read the resized pixels.

        Raises:
            StoreError: when a checksum is wrong.
        """
        parts = self._read(index)
        if self._checksums is not None and _checksum(parts) != self._checksums[index]:
            raise StoreError("its checksum is wrong.")
        key, image_hash, size, file_sha256, *strings, boxes, scores, features = parts[:11]
        tag_lengths, tags, label_lengths, labels = strings
        objects = VisualObjects(
            labels=_texts(label_lengths, labels),
            boxes=boxes.reshape(-1, 4).copy(),
            scores=scores.copy(),
            region_features=features.reshape(-1, self.format.region_feature_size).copy(),
            masks=self._decode_masks(*parts[11:]) if masks and self.format.masks else None,
            tags=_texts(tag_lengths, tags),
        )
        width, height = size.tolist()
        kept = self._read_pixels(index) if pixels and self.format.pixels is not None else None
        return Row(str(key, "utf-8"), image_hash.tobytes(), bytes(file_sha256) or None, width, height, objects, kept)

    def _read_pixels(self, index: int) -> np.ndarray:
        """Return the resized pixels of a row, which may not be written to, after checking their checksum."""
        pixels = self._pixels[index]
        if zlib.crc32(pixels) != self._pixel_checksums[index]:
            raise StoreError("the checksum of its pixels is wrong.")
        return pixels

    def compute_checksum(self, index: int) -> int:
        """Return the CRC-32 of the content of a row."""
        return _checksum(self._read(index))

    def _read(self, index: int) -> list[Any]:
        """Return views of the content of a row; a list of strings or runs is preceded by their lengths."""
        parts = [self._key[index], self.hashes[index], self._sizes[index]]
        parts += [self.files[index] if self._has_file[index] else b""]
        parts += [*self._tags.read(index), *self._labels.read(index)]
        parts += [self._boxes[index], self._scores[index], self._features[index]]
        if self.format.masks:
            runs = [self._runs[mask] for mask in range(self._masks[index], self._masks[index + 1])]
            parts += [self._mask_sizes[index], array("q", map(len, runs)), *runs]
        return parts

    def _decode_masks(self, size: np.ndarray, lengths: Any, *runs: np.ndarray) -> np.ndarray:
        height, width = size.tolist()
        masks = [decode_mask(one, height, width) for one in runs]
        return np.stack(masks) if masks else np.zeros((0, height, width), bool)


def _checksum(parts: Sequence[Any]) -> int:
    return zlib.crc32(b"".join(parts))


def _texts(lengths: Any, letters: memoryview) -> list[str]:
    ends = list(itertools.accumulate(lengths, initial=0))
    content = bytes(letters)
    text = content.decode()
    if len(text) == len(content):  # ASCII: one byte a letter
        return [text[first:last] for first, last in itertools.pairwise(ends)]
    return [content[first:last].decode() for first, last in itertools.pairwise(ends)]


class _Lists:
    """Column of lists of numbers; item `i` is a flat view of list `i`."""

    def __init__(self, column: Any, width: int) -> None:
        self.offsets, self._width, values = _offsets(column), width, column.values
        self._values = getattr(values, "values", values).to_numpy()

    def __getitem__(self, index: int) -> np.ndarray:
        return self._values[self.offsets[index] * self._width : self.offsets[index + 1] * self._width]


class _Strings:
    """Column of strings."""

    def __init__(self, column: Any) -> None:
        data = column.buffers()[2]
        self.offsets, self.letters = _offsets(column), memoryview(data if data is not None else b"")

    def __getitem__(self, index: int) -> memoryview:
        return self.letters[self.offsets[index] : self.offsets[index + 1]]


class _StringLists:
    """Column of lists of strings."""

    def __init__(self, column: Any) -> None:
        self._offsets, self._strings = _offsets(column), _Strings(column.values)

    def read(self, index: int) -> tuple[Any, memoryview]:
        """Return the lengths of the strings of a list, in bytes, and the bytes of all of them."""
        ends = self._strings.offsets[self._offsets[index] : self._offsets[index + 1] + 1].tolist()
        lengths = array("q", map(operator.sub, ends[1:], ends))
        return lengths, self._strings.letters[ends[0] : ends[-1]]


def _offsets(column: Any) -> memoryview:
    """Return the start of each list or string, and the end of the last one."""
    buffer = column.buffers()[1]
    offsets = memoryview(buffer if buffer is not None else bytes(4)).cast("i")
    if len(offsets) <= len(column):
        raise ValueError("has fewer offsets than rows.")
    return offsets[: len(column) + 1]


def _fixed_bytes(column: Any) -> np.ndarray:
    buffer = column.buffers()[1]
    return np.frombuffer(buffer, np.uint8, len(column) * HASH_SIZE).reshape(-1, HASH_SIZE)


def encode_mask(mask: np.ndarray) -> np.ndarray:
    """Return a mask as uncompressed run lengths of COCO: column by column, starting with pixels outside.

    Args:
        mask: bool array of shape (height, width).

    Returns:
        uint32 array of shape (runs,), whose sum is height * width.
    """
    pixels = np.asarray(mask, bool).flatten(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = np.concatenate(([0], changes, [pixels.size]))
    runs = np.diff(edges).astype(np.uint32)
    return np.concatenate(([0], runs)).astype(np.uint32) if pixels.size and pixels[0] else runs


def decode_mask(runs: Sequence[int] | np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the mask of run lengths, bool array of shape (height, width); the inverse of `encode_mask`.

    Raises:
        ValueError: when the runs do not cover a mask of this size.
    """
    runs = np.asarray(runs, np.int64)
    if int(runs.sum()) != height * width:
        raise ValueError(f"Runs of {int(runs.sum())} pixels for a mask of {height} x {width}.")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape((height, width), order="F")
