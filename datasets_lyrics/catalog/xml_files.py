"""Annotations in Pascal VOC's XML: size, objects, names and boxes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from .boxes import from_xyxy
from .omissions import OmittedError

LARGEST_FILE = 1 << 22  # bytes
_DECLARATION = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


@dataclass
class VOCObject:
    """An object of a VOC file.

    Attributes:
        names: list of its names.
        boxes: list of boxes, xyxy in [0, 1].
    """

    names: list[str]
    boxes: list[list[float]] = field(default_factory=list)


@dataclass
class VOCFile:
    """Content of a VOC file.

    Attributes:
        filename: str, name of the image, or an empty string.
        objects: list of `VOCObject`; those without a box have none.
        faults: list of the errors of boxes that were left out.
    """

    filename: str
    objects: list[VOCObject]
    faults: list[OmittedError]


def read_voc(path: Path) -> VOCFile:
    """Read a VOC file; its pixels count from one.

    Raises:
        OmittedError: saying what is wrong with it; entities are refused, because they can expand without limit.
    """
    try:
        content = path.read_bytes() if path.stat().st_size <= LARGEST_FILE else b""
    except OSError as error:
        raise OmittedError("missing annotation", str(error)) from error
    if not content or _DECLARATION.search(content):
        raise OmittedError(
            "malformed XML", f"{path.name} is empty, larger than {LARGEST_FILE:,} bytes, or has entities"
        )
    try:
        tree = ElementTree.fromstring(content)  # noqa: S314  (entities are refused above)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise OmittedError("malformed XML", f"{path.name}: {error}") from error
    size = (_number(tree, "size/width"), _number(tree, "size/height"))
    objects, faults = [], []
    for element in tree.iter("object"):
        names = [name.text.strip() for name in element.findall("name") if name.text and name.text.strip()]
        boxes = []
        for box in element.findall("bndbox"):
            try:  # one bad box of many costs itself alone
                corners = [_number(box, name) for name in ("xmin", "ymin", "xmax", "ymax")]
                boxes.append(from_xyxy(corners, size, start=1))
            except OmittedError as error:
                faults.append(error)
        objects.append(VOCObject(names, boxes))
    return VOCFile((tree.findtext("filename") or "").strip(), objects, faults)


def _number(element: ElementTree.Element, name: str) -> float:
    text = element.findtext(name)
    try:
        return float(text or "")
    except ValueError:
        raise OmittedError(f"no field {name!r}", f"found {text!r:.40}") from None
