"""Visual Genome: questions and regions, with the numbers that its images have in COCO."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from .boxes import from_xywh
from .disk_index import DiskIndex
from .folder import Folder, Split
from .formats import Format, Record, Region, Row, field_of, text_of
from .json_stream import stream_elements
from .omissions import OmittedError

VG_STARTS = ("", "VG_100K/", "VG_100K_2/", "images/VG_100K/", "images/VG_100K_2/", "images/", "vg/VG_100K/")

Image = tuple[dict[str, Any], list[Any] | None]  # a record of the file; width, height and number in COCO


def _records(folder: Folder) -> Iterator[Record]:
    """Yield the images of a split's file with their sizes and their numbers in COCO, where they are known."""
    path = folder.file()
    with ExitStack() as stack:
        index = _image_data(folder, stack)
        for image in stream_elements(path):
            key = image.get("id", image.get("image_id")) if isinstance(image, dict) else None
            yield f"{path.name}, image {key}", (image, None if index is None else index.get(key))


def _image_data(folder: Folder, stack: ExitStack) -> DiskIndex | None:
    try:
        path = folder.find("image_data.json")
    except FileNotFoundError:
        return None
    entries = (one for one in stream_elements(path) if isinstance(one, dict))
    fields = ((e.get("image_id", e.get("id")), [e.get("width"), e.get("height"), e.get("coco_id")]) for e in entries)
    return stack.enter_context(DiskIndex(fields))


def _identity(number: Any, found: list[Any] | None) -> str:
    return f"vg/{number}" if found is None or found[2] is None else f"coco/{found[2]}"


def _question_rows(folder: Folder, record: Image) -> Iterable[Row]:
    image, found = record
    for one in field_of(image, "qas"):
        number = field_of(one, "image_id")
        picture = folder.picture(f"{number}.jpg", VG_STARTS)
        question, answer, key = text_of(one, "question"), text_of(one, "answer"), str(field_of(one, "qa_id"))
        yield Row(key, [picture], "vqa", question, [answer], identity=_identity(number, found))


def _region_rows(folder: Folder, record: Image) -> Iterable[Row]:
    image, found = record
    number = field_of(image, "id", "image_id")
    picture = folder.picture(f"{number}.jpg", VG_STARTS)
    sides = [] if found is None else [side for side in found[:2] if isinstance(side, int) and side > 0]
    size = (sides[0], sides[1]) if len(sides) == 2 else folder.size(picture)
    for region in field_of(image, "regions"):
        try:  # one bad region of fifty costs itself alone
            box = from_xywh([field_of(region, name) for name in ("x", "y", "width", "height")], size)
            phrase, key = text_of(region, "phrase"), str(field_of(region, "region_id"))
        except OmittedError as error:
            name = region.get("region_id") if isinstance(region, dict) else region
            folder.omissions.add(f"{folder.split.files[0]}, image {number}, region {name!r:.40}", error)
            continue
        yield Row(key, [picture], "describe_region", regions=[Region(phrase, box)], identity=_identity(number, found))


FORMATS = (
    Format(
        "vg_qa",
        "Visual Genome questions",
        "vqa",
        "CC BY 4.0",
        "visualgenome.org: question_answers.json, image_data.json (for the numbers in COCO), images.zip, images2.zip",
        "VG_100K/*.jpg and VG_100K_2/*.jpg",
        {"train": Split(("question_answers.json",), 108_077)},
        _records,
        _question_rows,
        unit="records",
        source="vg",
    ),
    Format(
        "vg_regions",
        "Visual Genome regions",
        "referring",
        "CC BY 4.0",
        "visualgenome.org: region_descriptions.json, image_data.json, images.zip, images2.zip",
        "VG_100K/*.jpg and VG_100K_2/*.jpg",
        {"train": Split(("region_descriptions.json",), 108_077)},
        _records,
        _region_rows,
        unit="records",
        source="vg",
    ),
)
