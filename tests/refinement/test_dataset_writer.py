"""Writing a store: interruptions, full disks, failed images, changed plans."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from lyrics.assets import draw_table
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.refinement import (
    DuplicateKeyError,
    FolderLock,
    FolderLockedError,
    Item,
    RefinementStore,
    Source,
    StoreError,
    TooManyFailuresError,
    estimate,
    refine_dataset,
)

from ..datasets_lyrics.test_webdataset import write_tar
from ..failpoints import full_disk
from .conftest import SHARD_SIZE, contents, failures

KEYS = ["a0.png", "a1.png"]
OPTIONS = {"shard_size": SHARD_SIZE, "max_failure_rate": 0.5}
# root obeys permissions only without its capabilities
OBEY_PERMISSIONS = """
import ctypes
if os.getuid() == 0:
    assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
"""
# The processor finds the objects in a store, which saves the time of the refiner.
REFINE = 'refine_dataset(photos, f"{folder}/store", processor, shard_size=3, max_failure_rate=0.5, limit=limit)'


@pytest.fixture
def fast(loaded, store):
    """Processor that finds the objects of the photos in a store, without its refiner."""
    loaded.store = store
    return loaded


def is_complete(folder):
    manifest = folder / "manifest.json"
    return manifest.exists() and json.loads(manifest.read_text())["complete"]


# ---------------------------------------------------------------------------------------------------- interruptions


def test_killed_at_every_operation(failpoints, photos, tmp_path):
    """A complete store is correct; the same call finishes an incomplete one, with the same bytes."""
    names, folder = {"photos": str(photos), "limit": 6}, tmp_path / "store"
    assert failpoints.run(REFINE, tmp_path, **names).error is None
    expected = contents(folder)
    shards = set()
    for run in failpoints.kill_everywhere(REFINE, tmp_path, lambda: shutil.rmtree(folder, ignore_errors=True), **names):
        done = sorted(path.name for path in folder.glob("shards/*.json"))
        for name in done:
            assert contents(folder)[f"shards/{name}"] == expected[f"shards/{name}"]
        if run.killed and not is_complete(folder):
            with pytest.raises(StoreError, match=r"is not complete|manifest\.json is missing"):
                RefinementStore.open(folder)
        else:
            assert RefinementStore.open(folder).verify() == 9
        shards.add(len(done))
        again = failpoints.run(REFINE, tmp_path, **names)
        assert again.error is None, again.error
        assert not [operation for operation in again.operations if any(name[:8] in operation for name in done)]
        assert contents(folder) == expected
    assert shards == {0, 1, 2}


def test_a_full_disk(fast, made, photos, tmp_path):
    """The error names the file; once there is space, the same call completes the store."""
    folder = tmp_path / "store"
    sizes = sorted(len(content) for name, content in contents(made).items())
    for size in (100, sizes[len(sizes) // 2], sizes[-2] + 1, sizes[-1] - 1):
        with full_disk(size), pytest.raises(OSError, match=str(folder)) as caught:
            refine_dataset(photos, folder, fast, **OPTIONS)
        assert caught.value.errno == errno.EFBIG
        assert not [name for name in contents(tmp_path) if ".tmp-" in name]
    refine_dataset(photos, folder, fast, **OPTIONS)
    assert contents(folder) == contents(made)


def test_a_folder_that_cannot_be_written(failpoints, made, photos, tmp_path):
    """The error names the file, and the store is unchanged."""
    folder = tmp_path / "store"
    shutil.copytree(made, folder)
    (folder / "shards" / "00000001.json").unlink()
    before, names = contents(folder), {"photos": str(photos), "limit": None}
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555)
    run = failpoints.run(OBEY_PERMISSIONS + REFINE, tmp_path, **names)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    assert f"PermissionError: [Errno 13] Permission denied: '{folder}" in run.error
    assert contents(folder) == before


def test_a_second_run_is_refused_while_the_first_is_running(fast, made, photos, tmp_path):
    folder = shutil.copytree(made, tmp_path / "store")
    (folder / "shards" / "00000001.arrow").unlink()
    with FolderLock(folder, "refining"), pytest.raises(FolderLockedError, match="is locked by process"):
        refine_dataset(photos, folder, fast, **OPTIONS)
    assert not (folder / "shards" / "00000001.arrow").exists()
    refine_dataset(photos, folder, fast, **OPTIONS)
    assert contents(folder) == contents(made)


def test_finished_shards_are_not_made_again(failpoints, made, photos, tmp_path):
    """A complete store is not written to; a shard without its receipt is made again."""
    folder = shutil.copytree(made, tmp_path / "store")
    names = {"photos": str(photos), "limit": None}
    run = failpoints.run(REFINE, tmp_path, **names)
    assert run.error is None
    assert not [operation for operation in run.operations if ".lock" not in operation and "mkdir" not in operation]
    (folder / "shards" / "00000002.json").unlink()
    run = failpoints.run(REFINE, tmp_path, **names)
    opened = {
        operation.split("/")[2].split(".")[1] for operation in run.operations if "open store/shards/" in operation
    }
    assert opened == {"00000002"}
    assert contents(folder) == contents(made)


# ---------------------------------------------------------------------------------------------------- failures


def test_failed_images_are_listed(loaded, tmp_path):
    """Each with its key, its place and the reason; the other images are stored."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "empty.png").touch()
    (photos / "noise.jpg").write_bytes(os.urandom(1000))
    (photos / "gone.png").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.png")
    draw_table(40, 40).save(photos / "good.png")
    whole = (photos / "good.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (12_000, 12_000)).save(photos / "large.png")  # 18 kB
    found = refine_dataset(photos, tmp_path / "store", loaded, max_failure_rate=0.9)
    assert list(found.keys()) == ["good.png"]
    reasons = {failure["key"]: failure["reason"] for failure in failures(found.path)}
    expected = {
        "cut.png": "is damaged",
        "empty.png": "is not in a format",
        "gone.png": "No such file",
        "large.png": "12000 x 12000 = 144,000,000 pixels, and the limit is 120,000,000",
        "noise.jpg": "is not in a format",
        "pipe.png": "is not a file",
    }
    assert list(reasons) == list(expected)
    for key, words in expected.items():
        assert words in reasons[key]
    assert failures(found.path)[0]["place"] == "cut.png"
    assert str(tmp_path) not in (found.path / "failures.jsonl").read_text("utf-8"), "a store has no path of a machine"
    assert found.manifest.failure_count == 6


def test_a_stream_may_move(fast, photos, tmp_path):
    """Its store goes on, also one of version 0.1, which holds the whole path; another stream is refused."""
    folder, out = shutil.copytree(photos, tmp_path / "photos"), tmp_path / "store"
    lines = [json.dumps({"image": name}) for name in ("a0.png", "broken.jpg", "a1.png")]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    store = refine_dataset(folder / "rows.jsonl", out, fast, streaming=True, **OPTIONS)
    assert store.failure_count == 1
    assert not [name for name, content in contents(out).items() if str(tmp_path).encode() in content]
    moved = shutil.move(folder, tmp_path / "moved")
    before = contents(out)
    refine_dataset(moved / "rows.jsonl", out, fast, streaming=True, **OPTIONS)
    assert contents(out) == before
    source = store.manifest.source | {"place": str(folder / "rows.jsonl")}
    del source["bytes"]
    dataclasses.replace(store.manifest, source=source).save(out)
    assert len(refine_dataset(moved / "rows.jsonl", out, fast, streaming=True, **OPTIONS)) == 2
    store.manifest.save(out)
    (moved / "rows.jsonl").write_text("\n".join(lines[:2]))
    with pytest.raises(StoreError, match=r"bytes was \d+ and is \d+"):
        refine_dataset(moved / "rows.jsonl", out, fast, streaming=True, **OPTIONS)


def test_failures_are_tried_again_when_asked_for(fast, made, photos, tmp_path):
    """A repaired file is refined with its shard; other shards are not touched. Without the option nothing is done."""
    folder, repaired = shutil.copytree(made, tmp_path / "store"), shutil.copytree(photos, tmp_path / "photos")
    shutil.copyfile(repaired / "a0.png", repaired / "broken.jpg")
    before = contents(folder)
    assert refine_dataset(repaired, folder, fast, **OPTIONS).failure_count == 1
    assert contents(folder) == before
    store = refine_dataset(repaired, folder, fast, **OPTIONS, retry_failures=True)
    assert store.failure_count == 0
    assert store["broken.jpg"].labels == store["a0.png"].labels
    store.verify()
    changed = {name for name, content in contents(folder).items() if before.get(name) != content}
    assert [name for name in sorted(changed) if name.endswith(".arrow")] == ["shards/00000001.arrow"]


def test_too_many_failures_stop_the_run(fast, photos, tmp_path):
    """The error has an example; finished shards are kept, and a run with a higher rate uses them."""
    folder = tmp_path / "store"
    with pytest.raises(
        TooManyFailuresError, match=r"1 of 8 images failed, .* than the 10\.00%.*broken\.jpg: The image"
    ):
        refine_dataset(photos, folder, fast, shard_size=SHARD_SIZE, max_failure_rate=0.1)
    assert [failure["key"] for failure in failures(folder)] == ["broken.jpg"]
    with pytest.raises(StoreError, match="is not complete"):
        RefinementStore.open(folder)
    assert len(refine_dataset(photos, folder, fast, **OPTIONS)) == 7


def test_many_failures_stop_a_run_early(fast, tmp_path):
    """After a hundred images, not at the end."""
    for number in range(150):
        (tmp_path / f"{number:03}.png").touch()
    with pytest.raises(TooManyFailuresError, match=r"1\d\d of 1\d\d images failed"):
        refine_dataset(tmp_path, tmp_path / "store", fast, batch_size=1, shard_size=10)


def test_images_on_which_the_refiner_fails(photos, loaded, tmp_path):
    """The other images of the batch are stored."""
    picky = loaded.refiner
    forward = type(picky).forward

    def fail(self, *args, **kwargs):
        if any(size == [48, 96] for size in kwargs["image_sizes"].tolist()):
            raise RuntimeError("too wide")
        output = forward(self, *args, **kwargs)
        if any(size == [48, 80] for size in kwargs["image_sizes"].tolist()):
            output.region_features[:] = 1e6
        return output

    type(picky).forward = fail
    try:
        found = refine_dataset(photos, tmp_path / "store", loaded, limit=3, max_failure_rate=0.9)
    finally:
        type(picky).forward = forward
    assert list(found.keys()) == ["a0.png"]
    assert [failure["reason"] for failure in failures(found.path)] == [
        "What the refiner saw cannot be stored: the region features hold numbers beyond the range of half precision.",
        "The refiner failed: RuntimeError: too wide",
    ]


def test_images_without_objects(loaded, photos, tmp_path):
    """They get a normal row, also in a shard of their own."""
    loaded.refiner.config.box_threshold = 1.0
    found = refine_dataset(photos, tmp_path / "store", loaded, limit=2, shard_size=1)
    assert [len(found[key]) for key in KEYS[:2]] == [0, 0]
    assert found["a0.png"].region_features.shape == (0, 36)
    assert found.stats().pictures_without_objects == 2


def test_a_damaged_tar_shard(fast, photos, made, tmp_path):
    """The readable samples are stored; the unreadable rest is one failure with the name of the shard."""
    files = [(f"{number}.png", (photos / f"a{number}.png").read_bytes()) for number in range(3)]
    path = write_tar(tmp_path / "00.tar", [*files, ("1.png", b"again"), ("2.txt", b"alone")])
    path.write_bytes(path.read_bytes()[:-9000])
    found = refine_dataset(str(path), tmp_path / "store", fast, max_failure_rate=0.9)
    assert list(found.keys()) == ["00/0", "00/1", "00/2"]
    assert found["00/1"] == RefinementStore.open(made)["a1.png"]
    reasons = [(failure["key"], failure["reason"]) for failure in failures(found.path)]
    assert [key for key, _ in reasons] == ["00/1", "00/2", "00"][: len(reasons)]
    assert "is there twice" in reasons[0][1]


class RepeatingSource(Source):
    """Source of three shards of one image, whose first and last have the same key, as a stream may."""

    shards = total = 3

    def __init__(self, photos):
        self.photos = sorted(photos.glob("a*.png"))

    def describe(self):
        return {"kind": "repeating"}

    def items(self, shard):
        yield Item("same" if shard != 1 else "other", self.photos[shard], "")


def test_a_repeated_key_is_refused(fast, photos, tmp_path):
    """The error names both places, and the store stays incomplete."""
    with pytest.raises(
        DuplicateKeyError, match=r"'same' is there twice: .*00000000\.arrow, row 0, and .*2\.arrow, row 0"
    ):
        refine_dataset(RepeatingSource(photos), tmp_path / "store", fast)
    with pytest.raises(StoreError, match="is not complete"):
        RefinementStore.open(tmp_path / "store")


# ---------------------------------------------------------------------------------------------------- another plan


def test_a_store_of_something_else_is_refused(own_store, photos, fast, tmp_path):
    """The error has both values; a folder that is no store is not written to."""
    expected = contents(own_store)
    for options, message in (
        ({"shard_size": 4}, "shard_size was 3 and is 4"),
        ({"limit": 2}, "pictures was 8 and is 2; shards was 3 and is 1"),
        ({"masks": True}, "masks was False and is True"),
    ):
        with pytest.raises(StoreError, match=f"was begun with something else: .*{message}"):
            refine_dataset(photos, own_store, fast, **OPTIONS | options)
    other = shutil.copytree(photos, tmp_path / "other")
    (other / "a0.png").rename(other / "a00.png")
    with pytest.raises(StoreError, match=r"keys_sha256 was '.*' and is '"):
        refine_dataset(other, own_store, fast, **OPTIONS)
    assert contents(own_store) == expected
    with pytest.raises(
        StoreError, match=r"is neither empty nor a store: .*manifest.json is missing, but there is 'a00"
    ):
        refine_dataset(photos, other, fast, **OPTIONS)


def test_other_versions_of_libraries_are_a_warning(own_store, photos, fast, monkeypatch):
    messages = []
    monkeypatch.setattr("lyrics.refinement.storage.manifest.version", lambda name: "99")
    monkeypatch.setattr("lyrics.refinement.dataset_writer.logger.warning", messages.append)
    refine_dataset(photos, own_store, fast, **OPTIONS)
    assert "was begun with other versions of libraries; now there are {'ziya-lyrics': '99'" in messages[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "slurm"}, "engine must be one of local, ray, got 'slurm'"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_invalid_options_are_refused(fast, photos, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        refine_dataset(photos, tmp_path / "store", fast, **options)
    assert not (tmp_path / "store").exists()


def test_a_processor_without_refiner_is_refused(checkpoint, photos, tmp_path):
    with pytest.raises(ValueError, match="This processor has no refiner"):
        refine_dataset(photos, tmp_path, LyricsProcessor.from_pretrained(checkpoint, refiner=False))


def test_estimate(fast, photos, store, tmp_path):
    """The estimate counts and measures, and writes nothing."""
    from lyrics.refinement import open_source

    found = estimate(open_source(photos, shard_size=3), fast, batch_size=3)
    assert (found.pictures, found.shards, found.sampled, found.failed) == (8, 3, 3, 0)
    assert 0.5 < found.bytes_per_picture / (store.manifest.shards[0].bytes / 3) < 1.1
    assert found.bytes == found.bytes_per_picture * 8
    assert found.seconds(2) == found.seconds_per_picture * 4
    assert Path("store").exists() is False
