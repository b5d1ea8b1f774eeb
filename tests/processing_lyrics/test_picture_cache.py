"""A known image is not decoded, resized or normalized again, and one that has changed is never taken for it."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from lyrics.assets import MICRO_CHECKPOINT, SCENE_PICTURE
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.processing_lyrics.picture_cache import OpenedPicture, PictureCache


@pytest.fixture(scope="module")
def shared():
    return LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)


@pytest.fixture
def processor(shared):
    shared.picture_cache.clear()
    return shared


@pytest.fixture
def file(tmp_path):
    return save(Image.open(SCENE_PICTURE), tmp_path / "scene.bmp")


def save(picture, path):
    """Without compression, so that two images of a size have files of a length."""
    picture.convert("RGB").save(path)
    os.utime(path, (0, 0))
    return path


def prepare(processor, picture, **options):
    return processor(images=picture, text="<image> What is this?", **({"return_tensors": "pt"} | options))


def fresh_values(processor, picture):
    pixels = np.asarray(picture.convert("RGB"))
    return processor.image_processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("kind", ["path", "bytes", "mapping", "picture"])
def test_a_later_call_gives_equal_tensors(processor, file, kind):
    given = {"path": file, "bytes": file.read_bytes(), "mapping": {"path": str(file)}, "picture": Image.open(file)}[
        kind
    ]
    hits = processor.picture_cache.stats().hits
    first, second = (prepare(processor, given) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(second["pixel_values"], fresh_values(processor, Image.open(file)))
    stats = processor.picture_cache.stats()
    assert stats.hits - hits == (1 if kind == "picture" else 2)
    assert first["pixel_values"].nbytes < stats.bytes < 2 * first["pixel_values"].nbytes


def test_a_known_file_is_not_decoded(processor, file):
    assert "picture" in vars(processor.open_pictures(file)[0])
    known = processor.open_pictures([file])[0]
    key = known.key
    assert "picture" not in vars(known)
    assert key == OpenedPicture(lambda: Image.open(SCENE_PICTURE).convert("RGB")).key
    assert np.array_equal(known.picture, Image.open(SCENE_PICTURE).convert("RGB"))


def test_a_file_that_is_overwritten_is_noticed(processor, file):
    """Also where path, length and time are those of the file before."""
    length = file.stat().st_size
    prepare(processor, file)
    changed = Image.open(file).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    save(changed, file)
    assert (file.stat().st_size, file.stat().st_mtime) == (length, 0)
    inputs = prepare(processor, file)
    assert torch.equal(inputs["pixel_values"], fresh_values(processor, changed))
    assert torch.equal(inputs["region_features"], prepare(processor, changed.copy())["region_features"])


def test_a_picture_that_is_painted_on_is_noticed(processor, file):
    picture = Image.open(file)
    before = prepare(processor, picture)
    picture.paste((255, 0, 0), (100, 100, 300, 300))
    inputs = prepare(processor, picture)
    assert torch.equal(inputs["pixel_values"], fresh_values(processor, picture))
    assert not torch.equal(inputs["pixel_values"], before["pixel_values"])


def test_other_settings_are_noticed(processor, file, monkeypatch):
    prepare(processor, file)
    assert prepare(processor, file, do_normalize=False)["pixel_values"].min() >= 0
    monkeypatch.setattr(processor.image_processor, "image_std", [1.0, 1.0, 1.0])
    assert torch.equal(prepare(processor, file)["pixel_values"], fresh_values(processor, Image.open(file)))
    monkeypatch.setattr(processor, "max_image_pixels", 1000)
    with pytest.raises(ValueError, match=r"scene.bmp' has 512 x 512 = .* the limit is 1,000"):
        prepare(processor, file)


def test_nobody_shares_what_another_may_change(processor, file):
    first = prepare(processor, file, return_tensors=None)["pixel_values"][0]
    expected = first.copy()
    for _ in range(2):
        values = prepare(processor, file, return_tensors=None)["pixel_values"][0]
        assert np.array_equal(values, expected)
        values[:] = 0
        first[:] = 0


def test_pictures_of_one_call(processor, file):
    """A known one, the same one twice, and a new one."""
    prepare(processor, file)
    other = Image.open(file).rotate(90)
    inputs = processor(images=[other, file, other], text="<image> <image> <image>", return_tensors="pt")
    expected = [fresh_values(processor, one) for one in (other, Image.open(file), other)]
    assert torch.equal(inputs["pixel_values"], torch.cat(expected))
    assert processor.picture_cache.stats().entries == 3  # two images, one file


def test_what_is_damaged_stays_an_error(processor, tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match=r"missing.png' does not exist"):
            prepare(processor, tmp_path / "missing.png")
        (tmp_path / "half.png").write_bytes(SCENE_PICTURE.read_bytes()[:2000])
        with pytest.raises(ValueError, match=r"half.png' is damaged"):
            prepare(processor, str(tmp_path / "half.png"))
    assert processor.picture_cache.stats().entries == 0


def test_given_objects_leave_nothing_behind(processor, file):
    """Training sees each image once, and would fill the cache for nothing."""
    objects = processor.refine(Image.open(file))
    prepare(processor, Image.open(file), visual_objects=objects)
    assert processor.picture_cache.stats().entries == 0


def test_outputs_of_another_kind_are_not_kept():
    def prepare_tiles(pictures, **options):
        return {"pixel_values": [np.zeros((3, 2, 2))] * len(pictures), "num_tiles": [len(pictures)] * len(pictures)}

    class Tiles:
        __call__ = staticmethod(prepare_tiles)

    cache = PictureCache()
    pictures = [cache.open(Image.new("RGB", (2, 2), color), 100) for color in ("red", "blue")]
    for _ in range(2):
        assert cache.preprocess(Tiles(), pictures, {})["num_tiles"] == [2, 2]
    assert cache.stats().entries == 0


def test_nothing_is_kept_without_room(file):
    cache = PictureCache(max_bytes=0)
    keys = {cache.open(file, 10**6).key for _ in range(2)}
    assert keys == {OpenedPicture(lambda: Image.open(file)).key}
    assert cache.stats().bytes == cache.stats().entries == 0
