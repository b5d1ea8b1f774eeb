"""Visual objects of one image as data: returned by a refiner, stored, and given to the processor."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .processor_checks import naming_disk_errors
from .spatial_text import as_text

FORMAT = "lyrics-visual-objects"
_TOLERANCE = 1e-3  # of rounding; half precision near 1 has steps of 5e-4


@dataclass(eq=False)
class VisualObjects:
    """Objects of one image, best first. R objects, Q region features of width d_r.

    Attributes:
        labels: list of one name per object.
        boxes: float32 array of shape (R, 4), xyxy in [0, 1] of the upright image.
        scores: float32 array of shape (R,) in [0, 1].
        region_features: float32 or float16 array of shape (Q, d_r), the keys and values of the grounding queries. Q is
            R for `"mask"` features and the number of the detector's queries for `"detection"` features.
        masks: bool array of shape (R, height, width), or `None`.
        tags: list of the words that the detector looked for.
    """

    labels: list[str] = field(default_factory=list)
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    region_features: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    masks: np.ndarray | None = None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Convert lists and tensors to arrays, and check their units, and that they describe the same objects."""
        self.labels = _words("labels", self.labels)
        self.tags = _words("tags", self.tags)
        self.boxes = _array("boxes", self.boxes, np.float32)
        self.scores = _array("scores", self.scores, np.float32).reshape(-1)
        features = _array("region_features", self.region_features, None)
        if features.ndim != 2 and features.size:
            raise ValueError(f"VisualObjects: region_features must have two dimensions, got shape {features.shape}.")
        self.region_features = features if features.ndim == 2 and features.shape[1] else features.reshape(0, 0)
        if self.boxes.size % 4:
            raise ValueError(f"VisualObjects: boxes must be (R, 4), got shape {self.boxes.shape}.")
        self.boxes = self.boxes.reshape(-1, 4)
        _check_units(self.boxes, self.scores)
        counts = {"labels": len(self.labels), "boxes": len(self.boxes), "scores": len(self.scores)}
        if self.masks is not None:
            self.masks = _array("masks", self.masks, np.bool_)
            if self.masks.ndim != 3:
                raise ValueError(f"VisualObjects: masks must be (R, height, width), got shape {self.masks.shape}.")
            counts["masks"] = len(self.masks)
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"VisualObjects: labels, boxes, scores and masks must count the same objects, got {counts}."
            )

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.labels)

    def __eq__(self, other: object) -> bool:
        """Compare all values; objects with masks differ from those without."""
        if not isinstance(other, VisualObjects):
            return NotImplemented
        mine, theirs = self.to_dict(), other.to_dict()
        return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)

    def summary(self) -> list[dict[str, Any]]:
        """Return label, score and box of each object, rounded to four decimals, for JSON."""
        return [
            {"label": label, "score": round(float(score), 4), "box": [round(float(value), 4) for value in box]}
            for label, score, box in zip(self.labels, self.scores, self.boxes, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return lists of strings and NumPy arrays, for a row of an Arrow table; `masks` only where there are any."""
        values = {
            "labels": list(self.labels),
            "boxes": self.boxes,
            "scores": self.scores,
            "region_features": self.region_features,
            "region_feature_size": self.region_features.shape[1],  # keeps the width where there is no region
            "tags": list(self.tags),
        }
        return values if self.masks is None else values | {"masks": self.masks}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VisualObjects:
        """Build objects from the dictionary of `to_dict`; arrays may be lists, and further keys are ignored.

        Raises:
            ValueError: a value has the wrong type, shape or number.
        """
        given: Any = values
        if not isinstance(given, Mapping):
            raise ValueError(f"VisualObjects: from_dict takes a dictionary, got {type(given).__name__}.")
        known = {name: values[name] for name in cls.__dataclass_fields__ if values.get(name) is not None}
        objects = cls(**known)
        if objects.region_features.size == 0 and "region_feature_size" in values:
            width = values["region_feature_size"]
            try:
                objects.region_features = objects.region_features.reshape(0, int(width))
            except (ValueError, TypeError, OverflowError):
                raise ValueError(f"VisualObjects: region_feature_size must be a width, got {width!r}.") from None
        return objects

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file with the arrays as tensors, and labels and tags in its header.

        The file appears when it is complete.

        Raises:
            OSError: naming the file, if it cannot be written.
        """
        values = self.to_dict()
        arrays = {name: np.ascontiguousarray(value) for name, value in values.items() if isinstance(value, np.ndarray)}
        words = json.dumps({"labels": self.labels, "tags": self.tags}, ensure_ascii=True)
        content = save(arrays, metadata={"format": FORMAT, "words": words, "checksum": _checksum(words, arrays)})
        aside = os.path.join(os.path.dirname(path), f".objects.tmp-{uuid.uuid4().hex[:12]}")
        with naming_disk_errors(path):
            try:
                with open(aside, "xb") as file:
                    file.write(content)
                os.replace(aside, path)
            except BaseException:
                with suppress(OSError):
                    os.remove(aside)
                raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VisualObjects:
        """Read a file of `save`.

        Raises:
            ValueError: the file is of another kind or damaged; the message names it.
            OSError: there is no such file.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"{path} is a safetensors file, but not one of visual objects.")
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
                if unknown := metadata.keys() - {"format", "words", "checksum"}:
                    raise ValueError(f"{path} is damaged: its header has an unknown entry {sorted(unknown)[0]!r}.")
        except (SafetensorError, TypeError) as error:  # TypeError for types that NumPy lacks
            raise ValueError(f"{path} is not a file of visual objects, or it is damaged: {error}") from error
        try:
            if metadata.get("checksum") not in (None, _checksum(metadata["words"], arrays)):
                raise ValueError("its checksum is wrong")
            return cls.from_dict(json.loads(metadata["words"]) | arrays)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{path} is a damaged file of visual objects: {error}") from error


def flatten_objects(visual_objects: Any) -> list[VisualObjects | None]:
    """Return `VisualObjects` or their dictionaries, alone or in nested lists, as a flat list; `None` is kept."""
    if visual_objects is None or isinstance(visual_objects, VisualObjects):
        return [visual_objects]
    if isinstance(visual_objects, Mapping):
        return [VisualObjects.from_dict(visual_objects)]
    if not isinstance(visual_objects, list | tuple):
        raise ValueError(f"visual_objects must be VisualObjects or their dictionaries, got {type(visual_objects)}.")
    return [objects for element in visual_objects for objects in flatten_objects(element)]


def _checksum(words: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of everything that a file holds; files of versions before 0.2 have none."""
    digest = hashlib.sha256(words.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\0{name} {array.dtype} {array.shape}\0".encode() + array.tobytes())
    return digest.hexdigest()


def _words(name: str, values: Any) -> list[str]:
    """Return values as a list of strings."""
    has_none = getattr(values, "ndim", 1) == 0  # an array of one number says that it is iterable
    if isinstance(values, str) or not isinstance(values, Iterable) or has_none:
        raise ValueError(f"VisualObjects: {name} must be a list of names, got {type(values).__name__}.")
    return [as_text(str(value)) for value in values]


def _check_units(boxes: np.ndarray, scores: np.ndarray) -> None:
    """Raise a `ValueError` that names the first box or score in another unit than expected."""
    outside = (boxes < -_TOLERANCE) | (boxes > 1 + _TOLERANCE)
    if outside.any():
        index = int(outside.any(axis=1).argmax())
        raise ValueError(
            f"VisualObjects: boxes must be xyxy in [0, 1] of the upright image, got {boxes[index].tolist()} (object "
            f"{index}): divide pixels by the image's width and height."
        )
    inverted = (boxes[:, :2] > boxes[:, 2:] + _TOLERANCE).any(axis=1)
    if inverted.any():
        index = int(inverted.argmax())
        raise ValueError(
            f"VisualObjects: boxes must be xyxy, the left top corner before the right bottom one, got "
            f"{boxes[index].tolist()} (object {index}): it is inverted, or holds a center and a size."
        )
    outside = (scores < -_TOLERANCE) | (scores > 1 + _TOLERANCE)
    if outside.any():
        index = int(outside.argmax())
        raise ValueError(f"VisualObjects: scores must be in [0, 1], got {scores[index]:g} (object {index}).")


def _array(name: str, values: Any, dtype: Any) -> np.ndarray:
    """Return an array of finite numbers; without `dtype`, float16 stays and other types become float32."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    try:
        array = np.asarray(values, dtype=dtype)
        if dtype is None and array.dtype != np.float16:
            array = array.astype(np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"VisualObjects: {name} is no array of numbers: {error}") from error
    if array.dtype != np.bool_ and not np.isfinite(array).all():
        raise ValueError(f"VisualObjects: {name} has values that are not finite.")
    return array
