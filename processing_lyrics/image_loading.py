"""Loading of images of any kind as upright RGB images; the pixel budget is checked before anything is decoded."""

from __future__ import annotations

import base64
import os
import re
import stat
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from io import BytesIO
from threading import RLock, Thread
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# a PIL image, a path, a URL, a file's bytes, a file that is open for reading bytes, a mapping with `bytes` or `path`,
# or an array or tensor, (H, W[, C]) or (C, H, W), of floats in [0, 1], integers of 8, 12 or 16 bits, or bool
PictureLike = Any

WHITE = (255, 255, 255, 255)
ORIENTATION = 0x0112  # EXIF tag
MAX_DOWNLOAD = 256 * 2**20  # bytes
TIMEOUT = 30.0  # seconds until the server must send something
DOWNLOAD_TIME = 120.0  # seconds until everything must have been sent
RUN_BY_OTHERS = ("EPS", "WMF")  # programs rather than pixels: Pillow starts Ghostscript, or asks Windows
ROUNDING = 1e-3  # by which a float may lie outside [0, 1]
SHORTEST_FILE = 24  # bytes of an image in any format; a shorter name is hardly base64

# Pillow reads a file on first use, and a second thread that uses the same image meanwhile would disturb it.
_READING = RLock()

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(?=://)")
_LINE_BREAK = re.compile(r"[ \t]*[\r\n]+[ \t]*")
_SAFE_IN_URL = "/?%:@!$&'()*+,;=~[]"  # also `%`, since a URL may be quoted already


class PictureError(ValueError):
    """Raised with a message fragment; `load_picture` prepends the image's name."""


def load_picture(source: PictureLike, max_pixels: int, name: PictureLike = None) -> Image.Image:
    """Load an image upright and in RGB.

    EXIF rotation is applied, transparency is put on white, 16-bit values are scaled, and the first frame of an
    animation is taken.

    Args:
        source: PIL image, path, URL (http or https), base64 text with or without `data:` before it, content of a
            file, file that is open for reading bytes, mapping with `bytes` or `path`, array or tensor.
        max_pixels: largest number of pixels; larger images are refused before they are decoded.
        name: what messages name, where it is not `source`: the path or mapping that its bytes come from.

    Raises:
        ValueError: the image is too large, empty, corrupt or of an unknown kind; the message names it.
    """
    with _naming(source if name is None else name):
        image = _open(source)
        _check_size(image.size, max_pixels)
        return _decode(image, is_shared=image is source)


def read_file(source: PictureLike) -> bytes | None:
    """Return the content of an image's file without decoding it, or `None` for an image, array or tensor.

    A local file that is larger than what is downloaded is not read either: `load_picture` opens it by its path.

    Args:
        source: image of a kind that `load_picture` takes.

    Raises:
        ValueError: the file cannot be read or fetched; the message names it.
    """
    with _naming(source):
        content = _from_mapping(source) if isinstance(source, Mapping) else source
        if isinstance(content, str):
            content = _from_text(content)
        if isinstance(content, BytesIO):
            return content.getvalue()
        if isinstance(content, bytes | bytearray | memoryview):
            return bytes(content)
        if isinstance(content, Image.Image):
            return None
        if hasattr(content, "read"):
            return _read(content)
        if not isinstance(content, str | os.PathLike):
            return None
        try:
            path = _check_file(content)
            if os.path.getsize(path) > MAX_DOWNLOAD:
                return None
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise PictureError(f"cannot be read: {error}") from error


def check_size(size: tuple[int, int], max_pixels: int, name: PictureLike) -> None:
    """Raise the `ValueError` of `load_picture` where an image of a (width, height) has more than `max_pixels`."""
    with _naming(name):
        _check_size(size, max_pixels)


@contextmanager
def _naming(source: PictureLike) -> Generator[None]:
    """Raise errors of images as a `ValueError` that names the image."""
    try:
        yield
    except PictureError as error:
        name = _name_of(source)
        name = "image" if name is None else f"image {_shorten(name)!r}"
        raise ValueError(f"The {name} {error}") from error.__cause__


def _name_of(source: PictureLike) -> str | None:
    """Return the path, URL or text that a message calls an image by, or `None`."""
    if isinstance(source, Mapping):
        source = source.get("path")
    elif hasattr(source, "read"):
        source = getattr(source, "name", None)  # a number for some files
    return str(os.fspath(source)) if isinstance(source, str | os.PathLike) else None


def _shorten(name: str) -> str:
    """Return the beginning and the end of a long name."""
    return name if len(name) <= 200 else f"{name[:100]}...{name[-20:]}"


def flatten_pictures(images: Any) -> list[PictureLike]:
    """Return one image, a list of images, a list of lists (one per text), or a 4-D array as a flat list."""
    if images is None:
        return []
    if getattr(images, "ndim", 0) > 3:  # a batch in one array or tensor
        return [picture for element in images for picture in flatten_pictures(element)]
    if isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview):
        return [picture for element in images for picture in flatten_pictures(element)]
    return [images]


def _open(source: PictureLike) -> Image.Image:
    """Return an image whose size is known and whose pixels are not read yet."""
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, Mapping):
        source = _from_mapping(source)
    if isinstance(source, str | os.PathLike):
        file: Any = _from_text(source) if isinstance(source, str) else _check_file(source)
    elif isinstance(source, bytes | bytearray | memoryview):
        file = BytesIO(source)
    elif hasattr(source, "read"):
        file = BytesIO(_read(source))
    else:
        return _from_array(source)
    with warnings.catch_warnings():
        # Pillow's own pixel limit gives a warning first; here `max_pixels` decides
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(file)
        except FileNotFoundError:
            raise PictureError("does not exist.") from None
        except UnidentifiedImageError:
            raise PictureError("is not in a format that can be read, or it is empty or damaged.") from None
        except Exception as error:  # Pillow's readers fail in many ways on damaged files
            raise PictureError(f"cannot be read: {error}") from error
    if image.format in RUN_BY_OTHERS:
        raise PictureError(f"is in format {image.format}, which another program would have to draw.")
    return image


def _from_array(source: Any) -> Image.Image:
    """Convert an array or tensor to a gray image, RGB or RGBA; a leading axis of 1 or 3 values holds the channels.

    The type of the values decides their range, not their content: [0, 1] for floats, 0 and 1 for bool, and 8, 12 or 16
    bits, whichever holds the largest, for integers.
    """
    try:
        if hasattr(source, "detach"):  # a tensor; NumPy has no bfloat16 or float8
            source = source.detach().cpu()
            source = source.float() if source.is_floating_point() else source
        values = np.asarray(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PictureError(f"is no array of pixels: {error}") from error
    if values.ndim == 3 and (values.shape[0] in (1, 3) or (values.shape[0] == 4 and values.shape[2] not in (1, 3, 4))):
        values = values.transpose(1, 2, 0)
    kind = f"of shape {values.shape} and {values.dtype}"
    if values.dtype.kind not in "buif" or values.ndim not in (2, 3) or values.shape[2:] not in ((), (1,), (3,), (4,)):
        raise PictureError(f"is no array of pixels: it is {kind}, and should be (H, W), (H, W, C) or (C, H, W).")
    if values.size == 0:
        raise PictureError(f"is empty: its array is {kind}.")
    values = values[..., 0] if values.shape[2:] == (1,) else values
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and not (low >= -ROUNDING and high <= 1 + ROUNDING):  # also refuses NaN
        raise PictureError(f"has float values from {low:g} to {high:g}: floats must be in [0, 1], bytes are uint8.")
    if values.dtype.kind != "f" and (low < 0 or high > 65535):
        raise PictureError(f"has {values.dtype} values from {low} to {high}: integers must be in 0..255 or 0..65535.")
    top = 1.0 if values.dtype.kind in "bf" else _top(high)
    return Image.fromarray(_to_bytes(np.ascontiguousarray(values), top))


def _from_mapping(source: Mapping[str, Any]) -> Any:
    """Return the bytes, or else the path, of an image that the `datasets` library has not decoded."""
    found = source.get("bytes") if source.get("bytes") is not None else source.get("path")
    if not isinstance(found, str | bytes | bytearray | os.PathLike):
        raise PictureError(
            f"is a mapping without 'bytes' and 'path': it has {', '.join(map(repr, source)) or 'nothing'}."
        )
    return found


def _read(file: Any) -> bytes:
    """Return the content of an open file, from its beginning where it can be rewound; at most `MAX_DOWNLOAD` bytes."""
    try:
        if file.seekable():
            file.seek(0)
        content = file.read(MAX_DOWNLOAD + 1)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise PictureError(f"is a file that cannot be read: {error}") from error
    if not isinstance(content, bytes):
        raise PictureError(f"is a file that gives {type(content).__name__} instead of bytes: open it with 'rb'.")
    return _check_length(content)


def _from_text(text: str) -> str | os.PathLike[str] | BytesIO:
    """Return the file that a path, a URL, a `data:` URI or bare base64 text names or holds."""
    scheme = _SCHEME.match(text)
    if scheme is not None and scheme[0].lower() in ("http", "https"):
        return BytesIO(_download(text))
    if text.startswith("data:"):
        return _from_base64(text)
    if os.path.lexists(text):
        return _check_file(text)
    if scheme is not None or text.lower().startswith("file:"):
        kind = text.partition(":")[0]
        advice = "give its path instead" if kind.lower() == "file" else "download it first"
        raise PictureError(f"is a URL of scheme {kind!r}, and only http and https are fetched: {advice}.")
    return _from_base64(text)


def _check_file(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return a path that opens without waiting: reading a pipe would hang until someone writes to it."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise PictureError("does not exist.") from None
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot be read: {error}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
        raise PictureError(f"cannot be read: it is {kind}, and not a file.")
    return path


def _from_base64(text: str) -> BytesIO:
    """Decode a `data:` URI or bare base64 text, also in lines; other text is treated as the name of a missing file."""
    header, encoded = text.partition(",")[::2] if text.startswith("data:") else ("", text)
    if header and not header.lower().endswith(";base64"):
        raise PictureError("cannot be read: a `data:` URI must be base64, as in `data:image/png;base64,...`.")
    try:
        content = base64.b64decode(_LINE_BREAK.sub("", encoded.strip()), validate=True)
    except ValueError as error:
        if header:
            raise PictureError(f"cannot be read: its base64 is damaged: {error}") from error
        raise PictureError("does not exist.") from None
    if not header and len(content) < SHORTEST_FILE:
        raise PictureError("does not exist.")
    return BytesIO(content)


def _download(url: str) -> bytes:
    """Return the content of a URL that the caller gave; at most `MAX_DOWNLOAD` bytes, within `DOWNLOAD_TIME`.

    A timeout of the socket counts from byte to byte. A thread of its own also ends the wait for a server that sends its
    answer, or even its headers, one byte at a time.
    """
    results: list[bytes | Exception] = []
    thread = Thread(target=_fetch, args=(url, results, time.monotonic() + DOWNLOAD_TIME), daemon=True)
    thread.start()
    thread.join(DOWNLOAD_TIME)
    if not results:
        raise PictureError(f"cannot be fetched: it takes longer than {DOWNLOAD_TIME:g} seconds.")
    if isinstance(results[0], Exception):
        raise PictureError(f"cannot be fetched: {results[0]}") from results[0]
    return _check_length(results[0])


def _fetch(url: str, results: list[bytes | Exception], end: float) -> None:
    """Append the content of a URL, or an error, to `results`; after the time `end`, append nothing."""
    content = bytearray()
    try:
        request = Request(_quote(url), headers={"User-Agent": "lyrics"})  # noqa: S310  (the scheme is known to be http)
        with urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
            while len(content) <= MAX_DOWNLOAD and (chunk := response.read1(2**16)):
                content += chunk
                if time.monotonic() > end:
                    return
        results.append(bytes(content))
    except Exception as error:  # noqa: BLE001  (raised again by the thread that waits)
        results.append(error)


def _quote(url: str) -> str:
    """Return a URL in ASCII: spaces and letters of other scripts in the path are quoted, those of the host encoded."""
    scheme, host, path, query, _ = urlsplit(url)
    host = host if host.isascii() else host.encode("idna").decode()
    return urlunsplit((scheme, host, quote(path, _SAFE_IN_URL), quote(query, _SAFE_IN_URL), ""))


def _check_length(content: bytes) -> bytes:
    """Return content of at most `MAX_DOWNLOAD` bytes."""
    if len(content) > MAX_DOWNLOAD:
        raise PictureError(f"is larger than {MAX_DOWNLOAD:,} bytes.")
    return content


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raise a `PictureError` where an image is empty or larger than `max_pixels`."""
    width, height = size
    if width * height == 0:
        raise PictureError(f"is empty: {width} x {height} pixels.")
    if width * height > max_pixels:
        raise PictureError(
            f"has {width} x {height} = {width * height:,} pixels, and the limit is {max_pixels:,} "
            "(`max_image_pixels` of the processor): make it smaller, or raise the limit."
        )


def _decode(image: Image.Image, is_shared: bool) -> Image.Image:
    """Read the pixels of an image, upright and in RGB; other threads may have a shared image, too."""
    try:
        with _READING if is_shared else nullcontext():
            if image.tell() != 0:
                image.seek(0)
            is_upright = image.getexif().get(ORIENTATION, 1) == 1
            image.load()
        return _to_rgb(image if is_upright else ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow's readers fail in many ways on damaged files
        raise PictureError(f"is damaged or cannot be read: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB."""
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scale_to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("RGB")


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale gray values of 16 or 32 bits, or floats, from the range that they take to 0..255."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    largest = values.max()
    return Image.fromarray(_to_bytes(values, 1.0 if image.mode == "F" and largest <= 1 else _top(largest)))


def _top(largest: float) -> float:
    """Return the largest value of the smallest usual range, of 8, 12 or 16 bits, that holds `largest`."""
    return next((limit for limit in (255.0, 4095.0, 65535.0) if largest <= limit), largest)


def _to_bytes(values: np.ndarray, top: float) -> np.ndarray:
    """Scale values from 0..top to bytes."""
    if values.dtype == np.uint8:
        return values
    return (values.astype(np.float64) / top * 255.0).clip(0, 255).round().astype(np.uint8)
