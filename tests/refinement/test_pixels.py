"""Stores that keep resized pixels: training decodes no file, and gets the same batches."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lyrics.processing_lyrics import LyricsProcessor
from lyrics.refinement import RefinementStore, StoreError, estimate, open_source, refine_dataset
from lyrics.refinement.storage.pixels import PixelFormat
from lyrics.refinement.storage.shards import ShardFile
from lyrics.trainers import LyricsPretrainingCollator
from lyrics_cli.main import main

from .conftest import SHARD_SIZE, contents
from .test_store import KEYS

OPTIONS = {"shard_size": SHARD_SIZE, "max_failure_rate": 0.5, "keep_pixels": True}
# The processor finds the objects in a store, which saves the time of the refiner.
REFINE = (
    'refine_dataset(photos, f"{folder}/store", processor, shard_size=3, max_failure_rate=0.5, limit=limit, '
    "keep_pixels=True)"
)


@pytest.fixture(scope="module")
def kept(photos, checkpoint, store, tmp_path_factory):
    """Store of the photos with pixels; their objects are those of the other store."""
    processor = LyricsProcessor.from_pretrained(checkpoint)
    processor.store = store
    return refine_dataset(photos, tmp_path_factory.mktemp("kept") / "store", processor, **OPTIONS)


def test_pixels_are_those_of_the_image_processor(kept, store, photos, loaded):
    """Of every file, bit by bit; the objects are there too."""
    for key in KEYS:
        row = kept.find_file((photos / key).read_bytes(), loaded.image_processor)
        picture = loaded.load_pictures(photos / key)[0]
        expected = loaded.image_processor(picture, return_tensors="np")["pixel_values"][0]
        found = loaded.image_processor.normalize_only(row.pixels)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        assert row.objects == store[key]
        assert kept.row(key).pixels is None, "they are read only when they are wanted"
    assert kept.find_file(b"another file", loaded.image_processor) is None
    assert store.find_file((photos / KEYS[0]).read_bytes(), loaded.image_processor) is None


def test_batches_without_decoding(kept, photos, checkpoint, store, monkeypatch):
    """A batch of the first stage is the same, and no file is decoded for it."""
    rows = [{"image": str(photos / key), "caption": f"{number} balls"} for number, key in enumerate(KEYS)]
    rows[1]["image"] = {"bytes": (photos / KEYS[1]).read_bytes(), "path": None}  # as the `datasets` library has it
    batches = []
    for one in (store, kept):
        processor = LyricsProcessor.from_pretrained(checkpoint, refiner=False)
        processor.store = one
        if one is kept:
            monkeypatch.setattr(Image, "open", lambda *args: pytest.fail("a file is decoded"))
        batches.append(LyricsPretrainingCollator(processor)(rows))
    decoded, read = batches
    assert decoded.keys() == read.keys()
    assert decoded["region_attention_mask"].any(), "the objects were there"
    for name, value in decoded.items():
        assert torch.equal(read[name], value) if isinstance(value, torch.Tensor) else read[name] == value, name


def test_pixels_of_another_image_processor_are_not_used(kept, photos, loaded, caplog):
    """Another size or resampling, or a crop: a warning, and the file is decoded as if the store had no pixels."""
    content = (photos / KEYS[0]).read_bytes()
    ours = loaded.image_processor
    for changes in ({"size": {"height": 32, "width": 32}}, {"resample": 2}, {"do_center_crop": True}):
        other = type(ours)(**{"size": ours.size, "resample": ours.resample, **changes})
        assert kept.find_file(content, other) is None, changes
    assert "the kept pixels are not used" in caplog.text
    assert "32 x 32 pixels, bicubic" in caplog.text


@pytest.mark.slow  # the way of other stores, which `test_dataset_writer.py` kills
def test_killed_at_every_operation(failpoints, photos, tmp_path):
    """A run of a store with pixels that was killed ends in the same bytes."""
    names = {"photos": str(photos), "limit": 1}
    folder = tmp_path / "store"
    assert failpoints.run(REFINE, tmp_path, **names).error is None
    expected, kills = contents(folder), 0
    shutil.rmtree(folder)
    for _ in failpoints.kill_everywhere(REFINE, tmp_path, lambda: shutil.rmtree(folder, ignore_errors=True), **names):
        assert failpoints.run(REFINE, tmp_path, **names).error is None
        assert contents(folder) == expected
        kills += 1
    assert kills > 10


def test_damaged_pixels_are_named(kept, photos, loaded, tmp_path):
    """A flipped bit of pixels is an error where they are read; objects are still found."""
    folder = shutil.copytree(kept.path, tmp_path / "store")
    content = (photos / KEYS[0]).read_bytes()
    shard = folder / "shards" / kept.shards[0].facts.name
    pixels = kept.find_file(content, loaded.image_processor).pixels.tobytes()
    written = bytearray(shard.read_bytes())
    assert written.count(pixels) == 1
    written[written.find(pixels) + 100] ^= 1
    shard.write_bytes(written)
    damaged = RefinementStore.open(folder)
    assert damaged[KEYS[0]] == kept[KEYS[0]]
    with pytest.raises(StoreError, match=r"00000000\.arrow: row 0 is damaged: the checksum of its pixels is wrong"):
        damaged.find_file(content, loaded.image_processor)
    with pytest.raises(StoreError, match="its checksum is wrong"):
        damaged.verify()
    with pytest.raises(StoreError, match="row 0 is damaged"):
        damaged.export(tmp_path / "parquet")


def test_other_pixels_are_refused(kept, photos, loaded, store, tmp_path):
    """A store goes on with the same pixels only, and stores with and without them are not joined."""
    with pytest.raises(StoreError, match=r"pixels was '64 x 64 pixels, bicubic.*' and is None"):
        refine_dataset(photos, kept.path, loaded, **OPTIONS | {"keep_pixels": False})
    with pytest.raises(StoreError, match=r"pixels=PixelFormat\(height=64"):
        RefinementStore.merge([store, kept], tmp_path / "both")
    loaded.image_processor.do_center_crop = True
    with pytest.raises(ValueError, match="does not resize every image to one size without a crop"):
        refine_dataset(photos, tmp_path / "new", loaded, **OPTIONS)


def test_a_store_with_pixels_is_a_store(kept, photos, loaded, tmp_path, capsys):
    """It is merged, verified, counted, and its size estimated."""
    merged = RefinementStore.merge([kept], tmp_path / "merged")
    assert merged.find_file((photos / KEYS[2]).read_bytes(), loaded.image_processor).key == KEYS[2]
    assert merged.verify() > 0
    assert main(["store", "stats", str(kept.path)]) == 0
    assert "Pixels: 64 x 64 pixels, bicubic" in capsys.readouterr().out
    assert kept.stats().bytes_per_picture > 64 * 64 * 3
    loaded.store = kept
    source = open_source(photos, shard_size=SHARD_SIZE)
    sizes = [estimate(source, loaded, 2, keep_pixels=wanted).bytes_per_picture for wanted in (False, True)]
    assert 64 * 64 * 3 <= sizes[1] - sizes[0] < 64 * 64 * 3 + 100


@pytest.mark.parametrize("changes", [{"height": 0}, {"width": "64"}, {"resample": 3}, {"depth": 3}])
def test_wrong_formats_are_refused(changes):
    values = {"height": 64, "width": 64, "resample": "BICUBIC", "backend": "pil"}
    assert vars(PixelFormat.from_dict(values)) == values
    with pytest.raises((TypeError, ValueError)):
        PixelFormat.from_dict(values | changes)


def test_a_shard_with_other_pixels_is_refused(kept):
    """Its metadata are compared with the manifest's."""
    shard = kept.shards[0]
    other = dataclasses.replace(shard.row_format, pixels=dataclasses.replace(shard.row_format.pixels, height=32))
    with pytest.raises(StoreError, match="belongs to another store: it has other metadata"):
        ShardFile(shard.folder, shard.facts, other).open()
