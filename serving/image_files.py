"""Image files of strangers: the formats that are read, and their size before anything is decoded."""

from __future__ import annotations

import warnings
from io import BytesIO

from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # Pillow has forty more readers, some of them old


def read_image_size(file: bytes) -> tuple[int, int]:
    """Return width and height of an image file without decoding it.

    Args:
        file: bytes of the file.

    Raises:
        ValueError: it is damaged, in none of `FORMATS`, or has more pixels than Pillow opens.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # callers have smaller limits
        try:
            with Image.open(BytesIO(file), formats=FORMATS) as image:
                return image.size
        except Image.DecompressionBombError as error:
            raise ValueError("The image has far more pixels than are read.") from error
        except Exception as error:
            message = f"The image is damaged, or not in one of the formats {', '.join(FORMATS)}."
            raise ValueError(message) from error
