"""Images of any kind become upright RGB, or an error that names them."""

import base64
import io
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend

from lyrics.processing_lyrics import LyricsImageProcessorPil
from lyrics.processing_lyrics import image_loading as images
from lyrics.processing_lyrics.image_loading import flatten_pictures, load_picture

LIMIT = 1_000_000
RED, WHITE = (255, 0, 0), (255, 255, 255)


def solid(mode):
    """An image that is bright in its upper half and dark in its lower, in any mode."""
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
    """Bright stays bright, dark stays dark."""
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
    """A transparent pixel is white, not whatever color hides under it."""
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    if mode == "P":
        picture.save(tmp_path / "transparent.gif", transparency=0)
        picture = Image.open(tmp_path / "transparent.gif")
    else:
        picture = picture.convert(mode)
    assert load_picture(picture, LIMIT).getpixel((1, 1)) == WHITE


def test_exif_rotation_is_applied(tmp_path):
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
        np.full((8, 6, 1), 200, np.int64),
        np.full((8, 6, 4), [200, 200, 200, 255], np.uint8),
        np.full((8, 6), 200 * 257, np.uint16),
        np.full((3, 8, 6), 200 * 257, np.uint16),
        torch.full((1, 8, 6), 200 / 255, dtype=torch.float64),
        torch.full((3, 8, 6), 200 / 255, requires_grad=True),
        torch.full((3, 8, 6), 200 / 255, dtype=torch.bfloat16),
    ],
)
def test_arrays_and_tensors(source):
    picture = load_picture(source, LIMIT)
    assert picture.size == (6, 8)
    assert picture.getpixel((0, 0)) == (200, 200, 200)


@pytest.mark.parametrize("dtype", [bool, np.float16, np.float32, np.float64, torch.bool, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3), (3, 8, 6)])
def test_the_type_of_values_decides_their_range(dtype, shape):
    """0 and 1 are black and white in bool and floats, whatever else the array holds."""
    for value in (0, 1):
        values = (
            torch.full(shape, value, dtype=dtype) if isinstance(dtype, torch.dtype) else np.full(shape, value, dtype)
        )
        assert load_picture(values, LIMIT).getpixel((0, 0)) == (255 * value,) * 3
    mask = np.indices(shape[:2]).sum(axis=0) % 2 == 0
    assert np.array_equal(np.asarray(load_picture(mask, LIMIT))[..., 0], mask * 255)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_deep_gray_values_are_scaled_by_what_they_hold(bits, tmp_path):
    """As an array and as an image of mode I;16, also from a file."""
    values = np.linspace(0, 2**bits - 1, 48).reshape(8, 6).astype(np.uint16)
    expected = (values / (2**bits - 1) * 255).round().astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "deep.png")
    for source in (values, torch.from_numpy(values), Image.fromarray(values), tmp_path / "deep.png"):
        assert np.array_equal(np.asarray(load_picture(source, LIMIT))[..., 0], expected)


def test_a_fourth_channel_is_transparency():
    """An RGBA array lies on white, as an RGBA image does."""
    picture = Image.new("RGBA", (6, 8), (200, 0, 0, 128))
    expected = load_picture(picture, LIMIT).getpixel((0, 0))
    values = np.asarray(picture)
    for source in (values, values.transpose(2, 0, 1), torch.from_numpy(values / 255)):
        assert load_picture(source, LIMIT).getpixel((0, 0)) == expected != (200, 0, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((8, 6, 3), 200.0), "has float values from 200 to 200: floats must be in"),
        (np.linspace(-1, 1, 48).reshape(8, 6), "has float values from -1 to 1"),
        (torch.full((3, 8, 6), 1.5), "has float values from 1.5 to 1.5"),
        (np.full((8, 6), np.nan), "has float values from nan to nan"),
        (np.full((8, 6), -3), "has int64 values from -3 to -3: integers must be in"),
        (np.full((8, 6), 70_000), "has int64 values from 70000 to 70000"),
        (np.zeros((0, 6, 3)), r"is empty: its array is of shape \(0, 6, 3\)"),
    ],
)
def test_values_outside_their_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        load_picture(values, LIMIT)


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    """A small file of 400 million pixels."""
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"bomb\.png"):
        load_picture(path, 120_000_000)
    with pytest.raises(ValueError, match=r"has 2000 x 1000 = 2,000,000 pixels, and the limit is 1,000,000"):
        load_picture(Image.new("L", (2000, 1000)), LIMIT)


MEMORY = """
import resource, sys
from lyrics.assets import draw_table, random_parts
_, processor = random_parts()
processor(images=draw_table(), text="<image>")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
processor(images=sys.argv[1], text="<image>")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_hundred_megapixels_take_little_more_memory_than_their_pixels(tmp_path):
    """Model's view, tagger, detector and segmenter together; Pillow alone takes 400 MB."""
    Image.new("RGB", (10_000, 10_000)).save(tmp_path / "large.jpg")
    command = [sys.executable, "-c", MEMORY, tmp_path / "large.jpg"]
    megabytes = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert megabytes < 700


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": 9},
        {"size": (5, 6)},
        {"size": {"height": 11, "width": 7}},
        {"size": {"shortest_edge": 9}},
        {"resample": 0},
        {"do_resize": False},
        {"do_normalize": False},
    ],
    ids=str,
)
def test_resizing_first_gives_the_same_pixels(options):
    """As Transformers' own, which resizes a copy."""
    processor = LyricsImageProcessorPil(size={"height": 20, "width": 30})
    picture = Image.effect_noise((333, 221), 80).convert("RGB")
    ours = processor([[picture], [picture]], return_tensors="np", **options)["pixel_values"]
    theirs = PilBackend.preprocess(processor, [[picture], [picture]], return_tensors="np", **options)["pixel_values"]
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("fault", ["missing", "empty", "text", "truncated", "flipped", "folder", "program"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_unreadable_files_are_named(tmp_path, fault, suffix):
    path = tmp_path / f"photo.{suffix}"
    Image.effect_noise((200, 200), 90).convert("RGB").save(path)
    content = path.read_bytes()
    if fault == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif fault == "flipped":
        path.write_bytes(bytes(64) + content[64:])
    elif fault in ("empty", "text"):
        path.write_bytes(b"" if fault == "empty" else b"I am an image")
    elif fault == "program":  # Pillow would start Ghostscript
        Image.new("RGB", (4, 4)).save(path, format="EPS")
    else:
        path.unlink()
        if fault == "folder":
            path.mkdir()
    with pytest.raises(ValueError, match=rf"photo\.{suffix}"):
        load_picture(path, LIMIT)


@pytest.mark.parametrize("scheme", ["", "data:image/png;base64,"])
def test_base64(tmp_path, scheme):
    Image.new("RGB", (5, 4), RED).save(tmp_path / "red.png")
    text = scheme + base64.b64encode((tmp_path / "red.png").read_bytes()).decode()
    assert load_picture(text, LIMIT).getpixel((0, 0)) == RED
    with pytest.raises(ValueError, match="5 x 4 = 20 pixels, and the limit is 10"):
        load_picture(text, 10)
    with pytest.raises(ValueError, match=r"The image '.{0,150}' (is not in a format|does not exist)"):
        load_picture(scheme + "QUJD" * 1000, LIMIT)


@pytest.mark.parametrize("name", ["no\0where.png", "\ud800.png", "a" * 5000, "abcd", "", "data:,"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(ValueError, match=r"does not exist|is not in a format|cannot be read"):
        load_picture(name, LIMIT)


@pytest.mark.parametrize(
    "values", [np.zeros((2, 2, 2, 2)), np.zeros((5, 4, 7)), np.array(["a"]), np.zeros(0), object()]
)
def test_arrays_that_are_no_images(values):
    with pytest.raises(ValueError, match="is no array of pixels"):
        load_picture(values, LIMIT)


@pytest.fixture
def server(tmp_path):
    """A local one, which knows an image, something large, and nothing else."""
    Image.new("RGB", (5, 4), RED).save(tmp_path / "red.png")
    content = {"/red.png": (tmp_path / "red.png").read_bytes(), "/large.png": bytes(10_000)}
    content["/a%20b/%E6%97%A5.png?q=%20%C3%A4"] = content["/red.png"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/slow"):
                self.wfile.write(b"HTTP/1.0 200 OK\r\n" + b"\r\n" * (self.path == "/slow_body"))
                with suppress(OSError):
                    for _ in range(100):
                        self.wfile.write(b"x")
                        time.sleep(0.1)
                return
            self.send_response(200 if self.path in content else 404)
            self.end_headers()
            self.wfile.write(content.get(self.path, b"nothing"))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("width", [20, 76])
def test_base64_in_lines(tmp_path, width):
    """As `base64` and MIME write it; a file that lacks some letters is named as damaged, not as missing."""
    Image.new("RGB", (50, 40), RED).save(tmp_path / "red.png")
    text = base64.b64encode((tmp_path / "red.png").read_bytes()).decode()
    lines = "\r\n ".join(text[start : start + width] for start in range(0, len(text), width)) + "\n"
    for source in (lines, f"data:image/png;base64,{lines}"):
        assert load_picture(source, LIMIT).getpixel((0, 0)) == RED
    with pytest.raises(ValueError, match="cannot be read: its base64 is damaged"):
        load_picture(f"data:image/png;base64,{lines[:30]}", LIMIT)
    with pytest.raises(ValueError, match="a `data:` URI must be base64"):
        load_picture("data:image/svg+xml,<svg/>", LIMIT)


def test_open_files_and_undecoded_images(tmp_path):
    """Each is read from its beginning, as often as it is given."""
    path = tmp_path / "red.png"
    Image.new("RGB", (5, 4), RED).save(path)
    content = path.read_bytes()
    with path.open("rb") as file:
        sources = [file, io.BytesIO(content), bytearray(content), memoryview(content)]
        sources += [
            {"bytes": content, "path": None},
            {"bytes": None, "path": str(path)},
            {"bytes": content, "path": "x"},
        ]
        assert len(flatten_pictures(sources)) == len(sources)
        for source in [*sources, *sources]:
            assert load_picture(source, LIMIT).getpixel((0, 0)) == RED
    with pytest.raises(ValueError, match=r"'.*red.png' is a file that cannot be read: .*closed"):
        load_picture(file, LIMIT)
    with path.open(encoding="latin-1") as text, pytest.raises(ValueError, match=r"red.png' .* open it with 'rb'"):
        load_picture(text, LIMIT)
    for source, message in (
        ({"bytes": None, "path": None}, "is a mapping without 'bytes' and 'path': it has 'bytes', 'path'"),
        ({"url": "x"}, "is a mapping without 'bytes' and 'path': it has 'url'"),
        ({"bytes": b"", "path": "gone.png"}, r"'gone.png' is not in a format that can be read, or it is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            load_picture(source, LIMIT)


@pytest.mark.parametrize("link", [False, True])
def test_a_pipe_does_not_hang(tmp_path, link):
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    if link:
        path = tmp_path / "link.png"
        path.symlink_to(tmp_path / "pipe.png")
    for source in (path, str(path), {"bytes": None, "path": str(path)}):
        with pytest.raises(ValueError, match=r"(pipe|link)\.png' cannot be read: it is a pipe, and not a file"):
            load_picture(source, LIMIT)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///red.png", "is a URL of scheme 'file', .*: give its path instead"),
        ("file:/red.png", "is a URL of scheme 'file', .*: give its path instead"),
        ("s3://bucket/red.png", "is a URL of scheme 's3', and only http and https are fetched: download it first"),
    ],
)
def test_other_urls_are_named_as_such(url, message):
    with pytest.raises(ValueError, match=message):
        load_picture(url, LIMIT)


def test_pictures_from_the_web(server, monkeypatch):
    monkeypatch.setattr(images, "MAX_DOWNLOAD", 5_000)
    assert load_picture(f"{server}/red.png", LIMIT).getpixel((0, 0)) == RED
    with pytest.raises(ValueError, match=r"The image 'http.*/none.png' cannot be fetched: .*404"):
        load_picture(f"{server}/none.png", LIMIT)
    with pytest.raises(ValueError, match=r"large.png' is larger than 5,000 bytes"):
        load_picture(f"{server}/large.png", LIMIT)
    with pytest.raises(ValueError, match="cannot be fetched"):
        load_picture("http://127.0.0.1:1/red.png", LIMIT)


def test_urls_may_have_spaces_and_other_scripts(server):
    for path in ("a b/日.png?q= ä", "a%20b/%E6%97%A5.png?q=%20%C3%A4", "a b/日.png?q= ä#part"):
        assert load_picture(f"{server}/{path}".replace("http", "HTTP", 1), LIMIT).getpixel((0, 0)) == RED
    with pytest.raises(ValueError, match="cannot be fetched"):
        load_picture("http://bücher.invalid/日.png", LIMIT)


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_drips_is_given_up(server, part, monkeypatch):
    """It sends something all the time, so that no timeout of the socket ends it."""
    monkeypatch.setattr(images, "DOWNLOAD_TIME", 0.5)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"cannot be fetched: it takes longer than 0\.5 seconds"):
        load_picture(f"{server}/slow_{part}", LIMIT)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("images", "count"), [(None, 0), ([], 0), ("a", 1), (["a", "b"], 2), ([["a", "b"], [], ["c"]], 3), (("a",), 1)]
)
def test_flat_order(images, count):
    assert flatten_pictures(images) == list("abc")[:count]


@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_an_array_of_four_dimensions_is_a_list_of_pictures(make):
    assert [one.shape for one in flatten_pictures(make((2, 8, 6, 3)))] == [(8, 6, 3)] * 2
    assert len(flatten_pictures([make((2, 8, 6, 3)), make((8, 6))])) == 3
    assert flatten_pictures(make((0, 8, 6, 3))) == []
