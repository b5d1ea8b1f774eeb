"""An image of the page: loaded within limits, refined, and made small for the browser."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO

import numpy as np
from PIL import Image

from ...processing_lyrics import VisualObjects
from ...processing_lyrics.drawing import MASK_OPACITY, color_labels
from ...processing_lyrics.image_loading import load_picture
from ...processing_lyrics.picture_cache import OpenedPicture
from ..assistant import Lyrics
from ..image_files import read_image_size

MAX_FILE_BYTES = 20_000_000
MAX_PIXELS = 25_000_000
MAX_MASK_BYTES = 512 * 2**20  # of the masks of one image, a byte for each pixel and object, while it is refined
DISPLAY_SIDE = 1280  # longest side in the browser, in pixels
THUMBNAIL_SIDE = 192
_LOSSLESS_PIXELS = 600_000  # images up to this size are sent as PNG, photographs mostly as JPEG


@dataclass(frozen=True)
class RefinerSettings:
    """What the refiner looks for, where it differs from the model's own settings.

    Attributes:
        tags: tuple of words to look for; empty to ask the tagger.
        thresholds: mapping of the thresholds that differ.
    """

    tags: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(self.tags or self.thresholds)

    def arguments(self) -> dict[str, object]:
        """Return them as arguments of `Lyrics.see`."""
        arguments: dict[str, object] = {"tags": list(self.tags)} if self.tags else {}
        return arguments | ({"thresholds": dict(self.thresholds)} if self.thresholds else {})


USUAL_SETTINGS = RefinerSettings()


@dataclass(frozen=True, eq=False)
class PagePicture:
    """An image and what the refiner saw in it.

    Attributes:
        name: name of its file.
        image: RGB image.
        shown: data URL of the image for the browser.
        objects: objects without masks, or `None` where the model has no refiner.
        masks: data URL of all masks in the colors of their labels, or `None`.
        notices: tuple of remarks.
        settings: settings of the refiner that differ from the model's.
    """

    name: str
    image: Image.Image
    shown: str
    objects: VisualObjects | None = None
    masks: str | None = None
    notices: tuple[str, ...] = ()
    settings: RefinerSettings = USUAL_SETTINGS

    @classmethod
    def load(cls, file: bytes, name: str) -> PagePicture:
        """Decode an image that somebody sent.

        Args:
            file: bytes of an image file.
            name: name of the file.

        Raises:
            ValueError: the file is too large, damaged, or no image in a usual format.
        """
        if len(file) > MAX_FILE_BYTES:
            raise ValueError(f"The file has {len(file) / 1e6:.1f} MB, and the limit is {MAX_FILE_BYTES / 1e6:.0f} MB.")
        width, height = read_image_size(file)
        if width * height > MAX_PIXELS:
            raise ValueError(f"The image has {width} x {height} pixels, and the limit is {MAX_PIXELS:,} pixels.")
        image = load_picture(file, MAX_PIXELS)
        return cls(clean_name(name), image, encode_picture(shrink(image)))

    @cached_property
    def thumbnail(self) -> str:
        """Data URL of a small copy, which is shown beside questions."""
        return encode_picture(shrink(self.image, THUMBNAIL_SIDE))

    def refine(self, assistant: Lyrics, settings: RefinerSettings) -> PagePicture:
        """Return the image with what the refiner sees in it; without a refiner, as it is.

        Args:
            assistant: `Lyrics`.
            settings: settings that differ from the model's.

        Raises:
            ValueError: a setting is out of its range.
        """
        processor = assistant.processor
        if not processor.has_refiner and processor.store is None:
            return self
        objects = assistant.see(self.image, masks=self._may_have_masks(assistant, settings), **settings.arguments())  # type: ignore[arg-type]
        opened = OpenedPicture(lambda: self.image)
        notices = () if settings.tags else tuple(assistant.notices.about(opened, objects))
        masks = None if objects.masks is None or not len(objects) else encode_masks(objects, self.image.size)
        kept = replace(objects, masks=None)
        return replace(self, objects=kept, masks=masks, notices=notices, settings=settings)

    def _may_have_masks(self, assistant: Lyrics, settings: RefinerSettings) -> bool:
        """Return whether the refiner is asked for masks. A store holds none, and big images need much memory."""
        config = assistant.processor.refiner_config
        if config is None or not assistant.processor.has_refiner or assistant.processor.store is not None:
            return False
        most = settings.thresholds.get("max_regions", config.max_regions)
        return most * self.image.width * self.image.height <= MAX_MASK_BYTES


def clean_name(name: str) -> str:
    """Return the last part of a path, with printable characters alone, and at most 80 of them."""
    last = os.path.basename(name.replace("\\", "/"))
    kept = "".join(character for character in last if character.isprintable()).strip()
    return f"{kept[:60]}...{kept[-17:]}" if len(kept) > 80 else kept or "image"


def shrink(image: Image.Image, side: int = DISPLAY_SIDE) -> Image.Image:
    """Return an image whose sides are no longer than `side`."""
    factor = min(1.0, side / max(image.size))
    if factor == 1:
        return image
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def encode_picture(image: Image.Image) -> str:
    """Return an image as a data URL."""
    as_png = image.mode == "RGBA" or image.width * image.height <= _LOSSLESS_PIXELS
    file = BytesIO()
    if as_png:
        image.save(file, "PNG")
    else:
        image.save(file, "JPEG", quality=88)
    kind = "png" if as_png else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def encode_masks(objects: VisualObjects, size: Sequence[int]) -> str:
    """Return all masks as one transparent image, in the colors in which `draw_objects` shows their labels.

    Args:
        objects: objects with masks of shape (R, height, width).
        size: width and height of their image.
    """
    factor = min(1.0, DISPLAY_SIDE / max(size))
    shown = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    canvas = Image.new("RGBA", shown)
    colors = color_labels(objects.labels)
    masks = np.zeros((0, 1, 1), bool) if objects.masks is None else objects.masks
    for label, mask in reversed(list(zip(objects.labels, masks, strict=True))):  # the best object on top
        stencil = Image.fromarray((mask * 255).astype(np.uint8)).resize(shown)
        canvas.paste((*colors[label], round(255 * MASK_OPACITY)), mask=stencil)
    return encode_picture(canvas)
