"""Reading a store: look-up, refusal of stale objects, damage, and the operations on a whole store."""

import copy
import json
import pickle
import shutil
import sys
from contextlib import suppress

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from PIL import Image

from lyrics.assets import draw_table
from lyrics.modeling_lyrics import provenance_lyrics
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.refinement import (
    DuplicateKeyError,
    RefinementStore,
    RefinerIdentity,
    StaleStoreError,
    StoreError,
    hash_picture,
    refine_dataset,
)
from lyrics.refinement.storage import refiner_identity
from lyrics.refinement.storage.manifest import _checksum

from ..threads import run_at_once
from .conftest import SHARD_SIZE, assert_same_objects, contents

KEYS = ["a0.png", "a1.png", "a2.png", "sub/b0.PNG", "sub/b1.PNG", "sub/b2.PNG", "sub/deep/日本 c.jpg"]


# ---------------------------------------------------------------------------------------------------- looking up


def test_stored_equals_online(store, photos, loaded):
    """Objects are found by key, path, content of a file, and image."""
    assert len(store) == len(KEYS)
    assert list(store.keys()) == KEYS
    for key in KEYS:
        online = loaded.refine(photos / key)[0]
        assert_same_objects(store[key], online)
        picture = loaded.load_pictures(photos / key)[0]
        for source in (photos / key, (photos / key).read_bytes(), picture, np.asarray(picture)):
            assert store.lookup(source) == store[key]
        row = store.row(key, photos / key)
        assert (row.key, row.width, row.height) == (key, *picture.size)
        assert row.image_hash == hash_picture(picture)
    assert store.lookup(draw_table(33, 44)) is None
    assert store.row("none") is None
    assert "none" not in store
    assert "a0.png" in store
    with pytest.raises(KeyError, match=r"'none' is not in .*see failures\.jsonl"):
        store["none"]


def test_equal_pixels_are_one_image(store, photos):
    """Encoding and rotation do not matter; another size with the same bytes is another image."""
    upright = Image.open(photos / "a1.png").convert("RGB")
    rotated = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated.info["exif"] = exif.tobytes()
    rotated.getexif()
    assert store.lookup(rotated) == store["a1.png"]
    content = upright.tobytes()
    reshaped = Image.frombytes("RGB", upright.size[::-1], content)
    assert hash_picture(reshaped) != hash_picture(upright)
    assert store.lookup(reshaped) is None


def test_a_store_replaces_the_refiner(store, photos, model, checkpoint):
    """Stored and on-line objects give equal batches and losses, within the precision of the features."""
    pictures = [photos / key for key in KEYS]
    text = ["<image> What?"] * len(KEYS)
    processor = LyricsProcessor.from_pretrained(checkpoint)
    online = processor(images=pictures, text=text, return_tensors="pt")
    processor.store = store
    stored = processor(images=pictures, text=text, return_tensors="pt")
    without = LyricsProcessor.from_pretrained(checkpoint, refiner=False)
    without.store = store
    for name, tensor in without(images=pictures, text=text, return_tensors="pt").items():
        assert torch.equal(tensor, stored[name])
    for name in online:
        if name == "region_features":
            torch.testing.assert_close(stored[name], online[name], atol=1e-6, rtol=2**-11)
        else:
            assert torch.equal(stored[name], online[name])
    losses = [model(**inputs, labels=inputs["input_ids"]).loss for inputs in (online, stored)]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"Images \[1\] are not in the store, and this processor has no refiner"):
        without.refine([photos / "a0.png", draw_table(33, 44)])


def test_masks_are_kept_on_request(photos, loaded, tmp_path):
    store = refine_dataset(photos, tmp_path / "masks", loaded, masks=True, limit=2)
    for key in KEYS[:2]:
        online = loaded.refine(photos / key, return_masks=True)[0]
        np.testing.assert_array_equal(store.row(key, return_masks=True).objects.masks, online.masks)
        assert store[key].masks is None
        assert store.lookup(photos / key, return_masks=True).masks.shape == online.masks.shape


def test_copies_and_pickles(store, photos):
    """As workers of a data loader receive them; no rows are pickled."""
    content = pickle.dumps(store)
    assert len(content) < 2000
    again = pickle.loads(content)
    assert again["a0.png"] == store["a0.png"]
    assert pickle.dumps(again) == content
    assert copy.deepcopy(store).lookup(photos / "a1.png") == store["a1.png"]


def test_few_shards_are_mapped_at_a_time(made, monkeypatch):
    monkeypatch.setattr("lyrics.refinement.store.MAX_OPEN_SHARDS", 2)
    store = RefinementStore.open(made)
    for key in KEYS * 2:
        assert store[key] is not None
        assert len(store._open) <= 2


def test_threads_share_a_store(made, monkeypatch):
    """Each look-up maps another shard, and unmaps the one that another thread has just mapped."""
    monkeypatch.setattr("lyrics.refinement.store.MAX_OPEN_SHARDS", 1)
    store, interval = RefinementStore.open(made), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        found = run_at_once(lambda thread: [store[key].labels for key in (KEYS[thread:] + KEYS[:thread]) * 20], 7)
    finally:
        sys.setswitchinterval(interval)
    expected = [store[key].labels for key in KEYS]
    assert found == [(expected[thread:] + expected[:thread]) * 20 for thread in range(7)]


def test_reading_writes_nothing(failpoints, made, photos):
    """So that a store on a read-only disk can be used."""
    code = """
store = RefinementStore.open(folder)
store["a0.png"], store.lookup(pathlib.Path(photo)), store.verify(), store.stats(), list(store.keys())
"""
    run = failpoints.run(code, made, photo=str(photos / "a1.png"))
    assert run.error is None
    assert run.operations == []


def test_large_images_are_hashed_in_little_memory(failpoints, tmp_path):
    """An image of 100 megapixels is not copied."""
    Image.new("RGB", (10_000, 10_000), (1, 2, 3)).save(tmp_path / "large.png", compress_level=1)
    code = """
import resource
from lyrics.refinement.storage.picture_hash import read_picture
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000, used + 400_000_000))
assert len(read_picture(pathlib.Path(folder) / "large.png", 120_000_000).image_hash) == 32
"""
    assert failpoints.run(code, tmp_path).error is None


def test_without_pyarrow_the_extra_is_named(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"This needs pyarrow: pip install 'ziya-lyrics\[refinement\]'"):
        RefinementStore.open(made)["a0.png"]


# ---------------------------------------------------------------------------------------------------- never stale


def test_another_image_with_the_same_key_is_refused(store, photos):
    with pytest.raises(StaleStoreError, match=r"'a0\.png' is stale: .*64 x 48 pixels, hash .*80 x 48 pixels"):
        store.row("a0.png", photos / "a1.png")
    with pytest.raises(StaleStoreError, match="is stale"):
        store.row("a0.png", draw_table(64, 49))


def change_threshold(processor):
    processor.refiner.config.box_threshold = 0.5


def change_nested_setting(processor):
    processor.refiner.config.tagger_config.threshold = 0.25


def change_weights(processor):
    next(processor.refiner.parameters()).data += 1


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (change_threshold, r"box_threshold: 0\.25 in the store .*, 0\.5 in the processor"),
        (change_nested_setting, r"tagger_config\.threshold: 0\.5 in the store .*, 0\.25 in the processor"),
        (change_weights, "weights: '[0-9a-f]{60}.* in the store .*, '[0-9a-f]{60}"),
        (lambda processor: processor.to(dtype=torch.bfloat16), "dtype: 'float32' in the store .*, 'bfloat16' in the"),
    ],
)
def test_another_refiner_is_refused(store, made, photos, loaded, change, differs, tmp_path):
    """When the store is attached and when it is written to; the error says what differs."""
    change(loaded)
    with pytest.raises(StaleStoreError, match=f"comes from another refiner than the processor. {differs}"):
        loaded.store = store
    assert loaded.store is None
    with pytest.raises(StaleStoreError, match=differs):
        refine_dataset(photos, made, loaded, shard_size=SHARD_SIZE)


def test_a_refiner_that_changes_later_is_refused(store, loaded, checkpoint, refiner):
    loaded.store = store
    with pytest.raises(StaleStoreError, match="dtype"):
        loaded.to(dtype=torch.float16)
    assert loaded.store is None
    assert loaded.refiner.dtype == torch.float16
    with pytest.raises(StaleStoreError, match="weights"):
        loaded.to(dtype=torch.float32).store = store  # what was rounded stays so
    other = copy.deepcopy(refiner)
    other.config.max_regions = 3
    again = LyricsProcessor.from_pretrained(checkpoint)
    again.store = store
    with pytest.raises(StaleStoreError, match=r"max_regions: 16 in .*, 3 in"):
        again.attach_refiner(other)
    assert again.store is None


def test_a_store_is_checked_without_loading_weights(store, checkpoint):
    """With the refiner's configuration, without a refiner, and for a refiner in another dtype."""
    for options in ({}, {"refiner": False}):
        processor = LyricsProcessor.from_pretrained(checkpoint, **options)
        processor.store = store
        assert not processor.refiner_loaded
    other = LyricsProcessor.from_pretrained(checkpoint, refiner_kwargs={"dtype": "bfloat16"})
    with pytest.raises(StaleStoreError, match="dtype: 'float32' in the store"):
        other.store = store


def test_a_processor_that_was_saved_without_its_refiner(store, loaded, tmp_path):
    """Checkpoints of a trainer hold no refiner, only its fingerprint."""
    loaded.save_pretrained(tmp_path / "saved", save_refiner=False)
    saved = LyricsProcessor.from_pretrained(tmp_path / "saved")
    saved.store = store
    saved.refiner_fingerprint = "0" * 64
    with pytest.raises(StaleStoreError, match=r"that of the processor is 0000.*to see what differs"):
        saved.store = store


def test_a_processor_without_refiner_takes_that_of_the_store(store, model, checkpoint, loaded):
    """As one for a new first stage; it then refuses another refiner."""
    parts = (loaded.image_processor, loaded.tokenizer, loaded.mqformer_tokenizer)
    new = LyricsProcessor(*parts, region_feature_size=36)
    new.store = store
    assert new.refiner_fingerprint == loaded.refiner_fingerprint
    change_threshold(loaded)
    with pytest.raises(StaleStoreError, match="box_threshold"):
        new.attach_refiner(loaded.refiner)
    with pytest.raises(StaleStoreError, match="width 36, but this processor's model takes 260"):
        LyricsProcessor(*parts).store = store


def test_other_preprocessing_is_refused(store, checkpoint, monkeypatch):
    """The version of the code is compared too, because a checkpoint's fingerprint holds the version that saved it."""
    monkeypatch.setattr(refiner_identity, "BEHAVIOUR_VERSION", provenance_lyrics.BEHAVIOUR_VERSION + 1)
    monkeypatch.setattr(RefinerIdentity.__init__, "__defaults__", (provenance_lyrics.BEHAVIOUR_VERSION + 1,))
    with pytest.raises(StaleStoreError, match=r"behaviour_version: 1 in the store .*, 2 in the processor"):
        LyricsProcessor.from_pretrained(checkpoint).store = store


def test_a_difference_can_be_allowed(made, checkpoint):
    """Such as half precision, and only between refiners of one checkpoint."""
    half = LyricsProcessor.from_pretrained(checkpoint, refiner_kwargs={"dtype": torch.bfloat16})
    half.store = RefinementStore.open(made, allow=["dtype"])
    change_threshold(half)
    with pytest.raises(StaleStoreError, match=r"box_threshold"):
        half.store = half.store
    other = LyricsProcessor.from_pretrained(checkpoint, refiner_kwargs={"dtype": torch.bfloat16})
    other.refiner.config.fingerprint = "0" * 64
    with pytest.raises(StaleStoreError, match="weights"):
        other.store = RefinementStore.open(made, allow=["dtype"])


# ---------------------------------------------------------------------------------------------------- damage

FILES = [
    "shards/00000001.arrow",
    "shards/00000001.json",
    "index/keys.rows.npy",
    "index/images.hashes.npy",
    "failures.jsonl",
    "manifest.json",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_damage_is_named_and_repaired(own_store, made, store, photos, loaded, name, damage):
    """Opening or verifying names the file; once it is deleted, the same file is written again."""
    loaded.store = store  # which saves the refiner's time here
    file = own_store / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    with pytest.raises(StoreError, match=str(file).replace(".", r"\.").replace("rows", ".*").replace("hashes", ".*")):
        RefinementStore.open(own_store).verify()
    if name == "manifest.json":
        with pytest.raises(StoreError, match=r"manifest\.json"):
            refine_dataset(photos, own_store, loaded, shard_size=SHARD_SIZE, max_failure_rate=0.5)
        return
    file.unlink(missing_ok=True)
    refine_dataset(photos, own_store, loaded, shard_size=SHARD_SIZE, max_failure_rate=0.5).verify()
    assert contents(own_store) == contents(made)


def test_every_flipped_letter_of_a_receipt_is_found(own_store):
    """A receipt has no checksum of its own: it is compared with the manifest and the list of failures."""
    receipt = own_store / "shards" / "00000001.json"
    content = receipt.read_bytes()
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 2
        receipt.write_bytes(flipped)
        with suppress(ValueError):
            if json.loads(flipped) == json.loads(content):
                continue
        with pytest.raises(StoreError, match=r"00000001\.json"):
            RefinementStore.open(own_store).verify()


@pytest.mark.parametrize("content", ['"a text"', "[1]", "3", "null", "[" * 100_000])
def test_a_receipt_that_holds_no_object_is_none(own_store, content):
    (own_store / "shards" / "00000001.json").write_text(content)
    with pytest.raises(StoreError, match=r"00000001\.json"):
        RefinementStore.open(own_store).verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("plan"), "lacks an entry, or has one of another type: 'plan'"),
        (lambda values: values.update(shards=[{"name": "a"}]), "lacks an entry, or has one of another type"),
        (lambda values: values.update(files=["a", "b"]), "lacks an entry, or has one of another type"),
        (lambda values: values["shards"][0].update(rows="3"), "rows of ShardFacts is '3', and should be of type int"),
        (lambda values: values["shards"][0].update(bytes=-1), "bytes of ShardFacts is -1"),
        (lambda values: values["rows"].update(region_feature_size=None), "region_feature_size of RowFormat is None"),
        (lambda values: values["files"].update({"../secret": "0"}), r"names a file outside the store: '\.\./secret'"),
        (
            lambda values: values["shards"][0].update(name="/etc/passwd"),
            "names a file outside the store: '/etc/passwd'",
        ),
    ],
)
def test_a_crafted_manifest_is_refused(own_store, change, message):
    """Its checksum is right, so whoever wrote it meant it."""
    path = own_store / "manifest.json"
    values = json.loads(path.read_text())
    del values["checksum"]
    change(values)
    path.write_text(json.dumps(values | {"checksum": _checksum(values)}))
    with pytest.raises(StoreError, match=message):
        RefinementStore.open(own_store)


def test_a_folder_that_is_no_store_is_refused(tmp_path, own_store):
    with pytest.raises(StoreError, match=r"manifest\.json is missing: .* is not a store"):
        RefinementStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match=r"manifest\.json is not the manifest of a store"):
        RefinementStore.open(tmp_path)
    (own_store / "shards" / "00000000.arrow").write_bytes(b"ARROW1" * 100)
    with pytest.raises(StoreError, match=r"00000000\.arrow: has 600 bytes instead of"):
        RefinementStore.open(own_store)["a0.png"]


def test_a_damaged_index_never_returns_another_image(own_store):
    """It finds nothing, or raises an error."""
    rows = np.load(own_store / "index" / "keys.rows.npy")
    np.save(own_store / "index" / "keys.rows.npy", np.roll(rows, 1))
    assert all(RefinementStore.open(own_store).row(key) is None for key in KEYS)
    np.save(own_store / "index" / "keys.rows.npy", rows + np.uint64(100))
    with pytest.raises(StoreError, match="index is damaged: it names row 10"):
        RefinementStore.open(own_store).row("a0.png")


# ---------------------------------------------------------------------------------------------------- the whole store


def test_stats(store):
    found = store.stats()
    counts = [len(store[key]) for key in KEYS]
    assert (found.pictures, found.failures, found.objects) == (7, 1, sum(counts))
    assert (found.most_objects, found.pictures_without_objects) == (max(counts), 0)
    assert found.objects_per_picture == sum(counts) / 7
    assert (found.region_feature_type, found.region_feature_size) == ("mask", 36)
    assert sum(found.common_labels.values()) == sum(counts)
    assert found.bytes == store.bytes == found.bytes_per_picture * 7


def test_merge(made, photos, loaded, tmp_path):
    """The new store has the rows of the parts; the error for a key in both names both places."""
    draw_table(100, 40).save(tmp_path / "new.png")
    more = refine_dataset(tmp_path, tmp_path / "more", loaded, limit=1)
    merged = RefinementStore.merge([made, more], tmp_path / "merged")
    assert list(merged.keys()) == [*KEYS, "new.png"]
    assert merged["new.png"] == more["new.png"]
    assert merged["a1.png"] == RefinementStore.open(made)["a1.png"]
    assert merged.manifest.failure_count == 1
    merged.verify()
    loaded.store = merged
    with pytest.raises(DuplicateKeyError, match=r"'new\.png' is there twice: .*merged/.*, row 0, and .*more/.*, row 0"):
        RefinementStore.merge([merged, more], tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with pytest.raises(FileExistsError, match="merged exists"):
        RefinementStore.merge([more], tmp_path / "merged")


def test_stores_of_different_refiners_do_not_merge(made, photos, loaded, tmp_path):
    change_threshold(loaded)
    other = refine_dataset(photos, tmp_path / "other", loaded, limit=1)
    with pytest.raises(StaleStoreError, match=r"box_threshold: 0\.5 in .*, 0.25 in"):
        RefinementStore.merge([made, other], tmp_path / "merged")
    with pytest.raises(ValueError, match="no store to merge"):
        RefinementStore.merge([], tmp_path / "merged")


def test_other_libraries_read_it(store, made, tmp_path):
    """`datasets` reads the shards and the exported Parquet files."""
    store.export(tmp_path / "parquet")
    for kind, files in (("arrow", f"{made}/shards/*.arrow"), ("parquet", f"{tmp_path}/parquet/*.parquet")):
        rows = load_dataset(kind, data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert rows["key"][:] == KEYS
        for row in rows:
            objects = store[row["key"]]
            assert row["labels"] == objects.labels
            np.testing.assert_array_equal(np.array(row["boxes"], np.float32), objects.boxes)
            np.testing.assert_array_equal(np.array(row["region_features"], np.float16), objects.region_features)
    assert (
        pq.read_schema(tmp_path / "parquet" / "00000000.parquet").field("region_features").type.value_type.list_size
        == 36
    )


def test_the_store_is_the_same_every_time(made, photos, loaded, tmp_path):
    """Every file has the same bytes, wherever the images are."""
    again = tmp_path / "again"
    refine_dataset(
        shutil.copytree(photos, tmp_path / "photos"), again, loaded, shard_size=SHARD_SIZE, max_failure_rate=0.5
    )
    assert contents(again) == contents(made)
