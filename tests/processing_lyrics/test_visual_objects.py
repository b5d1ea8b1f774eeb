"""VisualObjects survive every form in which they are kept."""

import json
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

from lyrics.processing_lyrics import VisualObjects

from ..failpoints import full_disk


def build(count=3, width=5, dtype=np.float32, masks=False):
    random = np.random.default_rng(0)
    return VisualObjects(
        labels=[f"thing {index}" for index in range(count)],
        boxes=np.sort(random.random((count, 2, 2), np.float32), axis=1).reshape(count, 4),
        scores=random.random(count, np.float32),
        region_features=random.random((count, width), np.float32).astype(dtype),
        masks=random.random((count, 6, 7)) > 0.5 if masks else None,
        tags=["thing", "日本"],
    )


CASES = [build(), build(0), build(1, dtype=np.float16), build(2, masks=True), VisualObjects()]


@pytest.mark.parametrize("objects", CASES)
def test_dictionary(objects):
    assert VisualObjects.from_dict(objects.to_dict()) == objects


@pytest.mark.parametrize("objects", CASES)
def test_arrow(objects):
    """Lists of lists come back; half precision is then a matter of the table's schema."""
    row = {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in objects.to_dict().items()
    }
    table = pa.Table.from_pylist([row])
    back = VisualObjects.from_dict(table.to_pylist()[0])
    assert back.labels == objects.labels
    assert back.tags == objects.tags
    for name in ("boxes", "scores", "region_features"):
        assert getattr(back, name).shape == getattr(objects, name).shape
        np.testing.assert_array_equal(getattr(back, name), getattr(objects, name).astype(np.float32))
    if objects.masks is not None:
        np.testing.assert_array_equal(back.masks, objects.masks)


@pytest.mark.parametrize("objects", CASES)
def test_file(objects, tmp_path):
    path = tmp_path / "picture.safetensors"
    objects.save(path)
    back = VisualObjects.load(path)
    assert back == objects
    assert back.region_features.dtype == objects.region_features.dtype


def test_a_flipped_bit_of_a_file_never_gives_other_objects(objects, tmp_path):
    path = tmp_path / "one.objects.safetensors"
    objects[0].save(path)
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 400)):
        flipped = bytearray(content)
        flipped[place] ^= 2
        path.write_bytes(flipped)
        with suppress(ValueError):
            assert VisualObjects.load(path) == objects[0]


def test_a_full_disk_leaves_the_old_file(objects, tmp_path):
    path = tmp_path / "one.objects.safetensors"
    objects[0].save(path)
    with full_disk(100), pytest.raises(OSError, match=r"free some space .*one\.objects\.safetensors'"):
        objects[1].save(path)
    assert VisualObjects.load(path) == objects[0]
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_safetensors_of_its_arrays(tmp_path):
    objects = build()
    values = objects.to_dict()
    save_file({name: value for name, value in values.items() if isinstance(value, np.ndarray)}, tmp_path / "arrays")
    words = {name: values[name] for name in ("labels", "tags")}
    assert VisualObjects.from_dict(load_file(tmp_path / "arrays") | json.loads(json.dumps(words))) == objects


def test_tensors_are_taken():
    tensors = {
        "boxes": torch.rand(2, 2, 2).sort(dim=1).values.flatten(1),
        "scores": torch.rand(2),
        "region_features": torch.rand(2, 3).bfloat16(),
    }
    objects = VisualObjects(labels=["a", "b"], **tensors)
    assert objects.region_features.dtype == np.float32
    np.testing.assert_array_equal(objects.boxes, tensors["boxes"].numpy())


@pytest.mark.parametrize(
    "values",
    [
        {"labels": ["a"]},
        {"labels": ["a"], "boxes": [[0, 0, 1, 1]], "scores": [1.0, 0.5]},
        {"masks": np.ones((1, 2, 2))},
    ],
)
def test_counts_must_agree(values):
    with pytest.raises(ValueError, match="must count the same objects, got"):
        VisualObjects(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"boxes": "x"}, "boxes is no array of numbers"),
        ({"boxes": [[0, 0, 1]]}, r"boxes must be \(R, 4\), got shape \(1, 3\)"),
        ({"boxes": [[0, 0, 1, np.nan]]}, "boxes has values that are not finite"),
        ({"boxes": [[0, 0, 1, 1], [10, 20, 300, 400]]}, r"in \[0, 1\] .* got \[10.0, .*\(object 1\): divide pixels by"),
        ({"boxes": [[-0.5, 0, 1, 1]]}, r"boxes must be xyxy in \[0, 1\] of the upright image, got \[-0.5, "),
        ({"boxes": [[0.9, 0.1, 0.2, 0.3]]}, r"boxes must be xyxy, .*\(object 0\): it is inverted, or holds a center"),
        ({"boxes": [[0.1, 0.9, 0.2, 0.3]]}, r"boxes must be xyxy, .*\(object 0\): it is inverted, or holds a center"),
        ({"scores": [0.5, 50]}, r"scores must be in \[0, 1\], got 50 \(object 1\)"),
        ({"scores": [-1]}, r"scores must be in \[0, 1\], got -1 \(object 0\)"),
        ({"scores": [10**400]}, "scores is no array of numbers"),
        ({"region_features": [[np.inf]]}, "region_features has values that are not finite"),
        ({"region_features": np.zeros((1, 2, 3))}, "must have two dimensions"),
        ({"region_feature_size": "wide"}, "region_feature_size must be a width, got 'wide'"),
        ({"masks": [True]}, r"masks must be \(R, height, width\)"),
        ({"labels": "cup"}, "labels must be a list of names, got str"),
        ({"tags": 3}, "tags must be a list of names, got int"),
        ({"tags": torch.tensor(3)}, "tags must be a list of names, got Tensor"),
        ({"labels": np.array("cup")}, "labels must be a list of names, got ndarray"),
    ],
)
def test_what_does_not_describe_objects_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        VisualObjects.from_dict(values)


def test_errors_of_rounding_are_no_errors():
    """What half precision and a box without area look like; the values stay."""
    boxes = np.array([[-0.0005, 0.3, 1.0005, 0.3]], np.float16)
    assert np.array_equal(VisualObjects(["a"], boxes, [1.0005]).boxes, boxes.astype(np.float32))


def test_a_dictionary_is_needed():
    with pytest.raises(ValueError, match="from_dict takes a dictionary, got int"):
        VisualObjects.from_dict(5)


ARRAYS = {"boxes": np.zeros((1, 4), np.float32), "scores": np.zeros(1, np.float32)}
HEADER = {"format": "lyrics-visual-objects"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a file of tensors",
        (10**9).to_bytes(8, "little") + b"{}",
        (ARRAYS, {}),
        (ARRAYS, HEADER),
        (ARRAYS, HEADER | {"words": "{"}),
        (ARRAYS, HEADER | {"words": "[" * 100_000}),
        (ARRAYS, HEADER | {"words": "[]"}),
        (ARRAYS, HEADER | {"words": '{"labels": ["a", "b"]}'}),
        ({"boxes": torch.zeros(1, 4, dtype=torch.bfloat16)}, HEADER | {"words": "{}"}),
    ],
)
def test_other_files_are_refused(tmp_path, content):
    """The message names the file."""
    path = tmp_path / "picture.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        arrays, metadata = content
        save = save_file if isinstance(next(iter(arrays.values())), np.ndarray) else save_tensors
        save(arrays, path, metadata=metadata)
    with pytest.raises(ValueError, match=r"picture\.safetensors is"):
        VisualObjects.load(path)
    with pytest.raises(OSError, match="absent"):
        VisualObjects.load(tmp_path / "absent")


def test_features_without_width_are_none():
    """So that they are the same after a row of a table."""
    objects = VisualObjects(region_features=np.zeros((1, 0)))
    assert objects.region_features.shape == (0, 0)
    assert VisualObjects.from_dict(objects.to_dict()) == objects
