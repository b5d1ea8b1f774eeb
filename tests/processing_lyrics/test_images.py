"""Pictures of any kind become upright RGB, or an error that names them."""

import numpy as np
import pytest
import torch
from PIL import Image

from lyrics.processing_lyrics.images import flatten_pictures, load_picture

LIMIT = 1_000_000
RED, WHITE = (255, 0, 0), (255, 255, 255)


def solid(mode):
    """A picture that is bright in its upper half and dark in its lower, in any mode."""
    grey = Image.fromarray(np.repeat(np.array([[200]] * 4 + [[20]] * 4, np.uint8), 6, axis=1))
    if mode.startswith("I;16"):
        return Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(np.asarray(grey).astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    return grey.convert("RGB").convert(mode) if mode != "L" else grey


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F"]
)
def test_every_mode(mode):
    """F4: bright stays bright, dark stays dark."""
    if mode == "LAB":
        picture = Image.merge("LAB", [Image.new("L", (6, 8), value) for value in (200, 128, 128)])
    else:
        picture = solid(mode)
    rgb = np.asarray(load_picture(picture, LIMIT))
    assert rgb.shape == (8, 6, 3)
    assert rgb[0].mean() > 150
    if mode != "LAB":
        assert rgb[-1].mean() < 100


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode, tmp_path):
    """F4: a transparent pixel is white, not whatever colour hides under it."""
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    if mode == "P":
        picture.save(tmp_path / "transparent.gif", transparency=0)
        picture = Image.open(tmp_path / "transparent.gif")
    else:
        picture = picture.convert(mode)
    assert load_picture(picture, LIMIT).getpixel((1, 1)) == WHITE


def test_exif_rotation_is_applied(tmp_path):
    """F4."""
    picture = Image.new("RGB", (40, 20))
    picture.paste(RED, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "rotated.jpg", exif=exif, quality=100)
    upright = load_picture(tmp_path / "rotated.jpg", LIMIT)
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5))[0] > 200
    assert upright.getpixel((10, 35))[0] < 50


def test_first_frame_of_an_animation(tmp_path):
    """F4."""
    frames = [Image.new("RGB", (5, 5), color) for color in (RED, (0, 0, 255))]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    moving = Image.open(tmp_path / "moving.gif")
    moving.seek(1)
    assert load_picture(moving, LIMIT).getpixel((2, 2)) == RED


@pytest.mark.parametrize(
    "source",
    [
        np.full((8, 6, 3), 200, np.uint8),
        np.full((3, 8, 6), 200, np.uint8),
        np.full((8, 6), 200, np.uint8),
        torch.full((3, 8, 6), 200, dtype=torch.uint8),
        np.full((8, 6, 3), 200 / 255, np.float32),
    ],
)
def test_arrays_and_tensors(source):
    picture = load_picture(source, LIMIT)
    assert picture.size == (6, 8)
    assert picture.getpixel((0, 0)) == (200, 200, 200)


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    """F2: a small file of 400 million pixels."""
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"bomb\.png"):
        load_picture(path, 120_000_000)
    with pytest.raises(ValueError, match=r"has 2000 x 1000 = 2,000,000 pixels, and the limit is 1,000,000"):
        load_picture(Image.new("L", (2000, 1000)), LIMIT)


@pytest.mark.parametrize("fault", ["missing", "empty", "text", "truncated", "flipped", "folder"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_unreadable_files_are_named(tmp_path, fault, suffix):
    """F1."""
    path = tmp_path / f"photo.{suffix}"
    Image.effect_noise((200, 200), 90).convert("RGB").save(path)
    content = path.read_bytes()
    if fault == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif fault == "flipped":
        path.write_bytes(bytes(64) + content[64:])
    elif fault in ("empty", "text"):
        path.write_bytes(b"" if fault == "empty" else b"I am a picture")
    else:
        path.unlink()
        if fault == "folder":
            path.mkdir()
    with pytest.raises(ValueError, match=rf"photo\.{suffix}"):
        load_picture(path, LIMIT)


@pytest.mark.parametrize(
    ("images", "count"), [(None, 0), ([], 0), ("a", 1), (["a", "b"], 2), ([["a", "b"], [], ["c"]], 3), (("a",), 1)]
)
def test_flat_order(images, count):
    assert flatten_pictures(images) == list("abc")[:count]
