"""Your own data: COCO detection, YOLO, VOC, LLaMA-Factory's and ms-swift's rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...utils.optional_imports import import_optional
from .boxes import from_center, from_xywh, from_xyxy, normalize
from .dialogue import dialogue_rows, list_or_lines
from .disk_index import DiskIndex
from .folder import COCO_STARTS, Folder, Split, coco_names
from .formats import Format, Record, Region, Row, field_of, text_of
from .json_stream import stream_elements
from .omissions import OmittedError
from .xml_files import read_voc

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

# ---------------------------------------------------------------- COCO detection


def coco_detection_records(folder: Folder) -> Iterator[Record]:
    """Yield the images of a detection file with their boxes; crowds are left out, as their boxes are no objects."""
    path = folder.file()
    categories = (one for one in stream_elements(path, "categories") if isinstance(one, dict))
    names = {str(one.get("id")): one.get("name") for one in categories}
    with ExitStack() as stack:
        boxes = stack.enter_context(DiskIndex(_boxes_by_image(path)))
        for image in stream_elements(path, "images"):
            key = image.get("id") if isinstance(image, dict) else None
            found = [(names.get(str(category), category), box) for category, box in boxes.all(key)]
            yield f"{path.name}, image {key}", (image, found)


def _boxes_by_image(path: Path) -> Iterator[tuple[Any, Any]]:
    for entry in stream_elements(path, "annotations"):
        if isinstance(entry, dict) and not entry.get("iscrowd"):
            yield entry.get("image_id"), [entry.get("category_id"), entry.get("bbox")]


def _coco_detection_rows(folder: Folder, record: tuple[dict[str, Any], list[tuple[Any, Any]]]) -> Iterable[Row]:
    image, found = record
    number, name = field_of(image, "id"), text_of(image, "file_name")
    size = (field_of(image, "width"), field_of(image, "height"))
    subset = folder.split.pictures
    starts = (*COCO_STARTS, *((f"{subset}/", f"images/{subset}/") if subset else ()))
    names = [name, *(coco_names(number, subset) if str(number).isdecimal() and subset else ())]
    picture = folder.picture(names, starts)
    regions = [_named(folder, f"image {number}", category, box, size) for category, box in found]
    yield from _detection(str(number), picture, regions)


def _named(folder: Folder, place: str, name: Any, box: Any, size: tuple[Any, Any]) -> Region | None:
    """Return a region, or count it and return `None`: one bad box of many costs itself alone."""
    try:
        if not isinstance(name, str):
            raise OmittedError("unknown category", f"category_id {name!r:.40} has no name in `categories`")
        return Region(name, from_xywh(box, size))
    except OmittedError as error:
        folder.omissions.add(place, error)
        return None


def _detection(key: str, picture: str, regions: Iterable[Region | None]) -> Iterable[Row]:
    kept = [region for region in regions if region is not None]
    if not kept:
        raise OmittedError("no objects", f"{picture} has no box")
    yield Row(key, [picture], "detect", regions=kept)


# ---------------------------------------------------------------- YOLO and VOC


def yolo_records(folder: Folder) -> Iterator[Record]:
    """Yield the label files of a split with the names of the classes."""
    names = _yolo_names(folder)
    for path in _yolo_files(folder):
        yield str(path.relative_to(folder.root)), (path, names)


def _yolo_files(folder: Folder) -> list[Path]:
    """Return the label files, in `labels/<split>/`, `<split>/labels/` as Roboflow writes them, or `labels/`."""
    name = folder.split_name
    if name == "all":
        return folder.find_all("labels/*.txt")
    others = [f"{one}/labels/*.txt" for one in ((name, "valid") if name == "val" else (name,))]
    return folder.find_all(f"labels/{name}/*.txt", *others)


def _yolo_names(folder: Folder) -> list[str]:
    """Return the names of the classes, from `data.yaml` or `classes.txt`."""
    if folder.named is not None and folder.named.suffix in (".yaml", ".yml"):
        paths, folder.named = [folder.named], None
    else:
        folder.require_folder()
        paths = [folder.root / name for name in ("data.yaml", "dataset.yaml", "data.yml")]
    for path in paths:
        if path.is_file():
            yaml = import_optional("yaml")
            try:
                names = yaml.safe_load(path.read_bytes())["names"]
            except (yaml.YAMLError, KeyError, TypeError) as error:
                raise ValueError(f"{path} has no list `names` of the classes: {error}") from error
            return (
                [str(names[number]) for number in sorted(names)] if isinstance(names, dict) else list(map(str, names))
            )
    return folder.find("classes.txt", "obj.names").read_text(encoding="utf-8-sig").splitlines()


def _yolo_rows(folder: Folder, record: tuple[Path, list[str]]) -> Iterable[Row]:
    path, names = record
    start = "/".join("images" if one == "labels" else one for one in path.parent.relative_to(folder.root).parts)
    picture = folder.picture([f"{path.stem}{ending}" for ending in PICTURES], (f"{start}/", "images/", ""))
    regions = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            regions.append(_yolo_region(folder, f"{path.name}, line {number}", line.split(), names))
    yield from _detection(path.stem, picture, regions)


def _yolo_region(folder: Folder, place: str, words: list[str], names: list[str]) -> Region | None:
    try:
        if len(words) < 5 or not words[0].isdecimal() or int(words[0]) >= len(names):
            raise OmittedError("malformed record", f"{' '.join(words)!r:.60} is no class of {len(names)} and a box")
        values = [float(word) for word in words[1:]]
        if len(values) > 5 and len(values) % 2 == 0:  # a polygon
            xs, ys = values[::2], values[1::2]
            return Region(names[int(words[0])], normalize([min(xs), min(ys), max(xs), max(ys)]))
        return Region(names[int(words[0])], from_center(values[:4]))  # a fifth number is a score
    except (OmittedError, ValueError) as error:
        fault = error if isinstance(error, OmittedError) else OmittedError("malformed record", str(error))
        folder.omissions.add(place, fault)
        return None


def voc_records(folder: Folder) -> Iterator[Record]:
    """Yield the annotation files of a split: those that `ImageSets/Main` lists, or all where it does not exist."""
    folder.require_folder()
    listed = folder.root / "ImageSets" / "Main" / f"{folder.split_name}.txt"
    if listed.is_file():
        paths = [folder.root / "Annotations" / f"{name.split()[0]}.xml" for name in _lines(listed)]
    else:
        paths = folder.find_all("Annotations/*.xml")
    for path in paths:
        yield f"Annotations/{path.name}", path


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _voc_rows(folder: Folder, path: Path) -> Iterable[Row]:
    found = read_voc(path)
    for fault in found.faults:
        folder.omissions.add(f"Annotations/{path.name}", fault)
    names = [found.filename] if found.filename else []
    picture = folder.picture([*names, *(f"{path.stem}{ending}" for ending in PICTURES)], ("JPEGImages/", "images/", ""))
    regions = [Region(one.names[0], box) for one in found.objects if one.names for box in one.boxes]
    yield from _detection(path.stem, picture, regions)


# ---------------------------------------------------------------- LLaMA-Factory and ms-swift


def _llamafactory_rows(folder: Folder, record: dict[str, Any]) -> Iterable[Row]:
    if "conversations" not in record and "messages" not in record:
        question, extra = text_of(record, "instruction"), record.get("input")
        question = f"{question}\n{extra.strip()}" if isinstance(extra, str) and extra.strip() else question
        record = {**record, "messages": _turns(record, question, text_of(record, "output"))}
    yield from dialogue_rows(folder, _with_system(record))


def _turns(record: dict[str, Any], question: str, answer: str) -> list[dict[str, str]]:
    """Return the pairs of question and answer in `history`, and a last one, as messages."""
    pairs = [*(record.get("history") or []), (question, answer)]
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise OmittedError("malformed record", f"history is {record['history']!r:.80}")
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(_SPEAKERS, pair, strict=True)]


def _with_system(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose conversation begins with its `system`, unless it has such a message itself."""
    system, name = record.get("system"), "conversations" if "conversations" in record else "messages"
    given = record[name]
    if not isinstance(system, str) or not system.strip() or not isinstance(given, list):
        return record
    if any(isinstance(one, dict) and "system" in (one.get("role"), one.get("from")) for one in given):
        return record
    return {**record, name: [{"role": "system", "content": system}, *given]}


_SPEAKERS = ("user", "assistant")
_SWIFT_MARK = re.compile(r"(<bbox>|<ref-object>)")
_SWIFT_UNITS = {"real": None, "norm1": 1.0, "norm1000": 1000.0}


def _swift_rows(folder: Folder, record: dict[str, Any]) -> Iterable[Row]:
    row = next(iter(dialogue_rows(folder, _swift_conversation(record))))
    objects = record.get("objects") or {}
    boxes, names = iter(_swift_boxes(folder, row.images, objects)), iter(objects.get("ref") or [])
    for message in row.messages:
        message["content"] = [block for one in message["content"] for block in _swift_blocks(one, boxes, names)]
    if next(boxes, None) is not None:
        raise OmittedError("other number of boxes", "there are more boxes than <bbox>")
    yield row


def _swift_conversation(record: dict[str, Any]) -> dict[str, Any]:
    if "messages" not in record and "conversations" not in record:
        turns = _turns(record, text_of(record, "query"), text_of(record, "response"))
        record = {**record, "messages": turns}
    return _with_system(record)


def _swift_boxes(folder: Folder, images: list[str], objects: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = objects.get("bbox_type", "real")
    if kind not in _SWIFT_UNITS:
        raise OmittedError("unknown units", f"bbox_type is {kind!r:.40}")
    given = objects.get("bbox") or []
    numbers = objects.get("image_id") or [0] * len(given)
    for values, number in zip(given, numbers, strict=True):
        if not 0 <= number < len(images):
            raise OmittedError("box of another image", f"image_id is {number}, and there are {len(images)} images")
        side = _SWIFT_UNITS[kind]
        size = folder.size(images[number]) if side is None else (side, side)
        yield {"type": "box", "box": from_xyxy(values, size), **({"image": number} if len(images) > 1 else {})}


def _swift_blocks(block: dict[str, Any], boxes: Iterator[Any], names: Iterator[str]) -> Iterator[dict[str, Any]]:
    if block["type"] != "text":
        yield block
        return
    for part in _SWIFT_MARK.split(block["text"]):
        if part == "<bbox>":
            if (box := next(boxes, None)) is None:
                raise OmittedError("other number of boxes", "there are more <bbox> than boxes")
            yield box
        elif part == "<ref-object>":
            if (name := next(names, None)) is None:
                raise OmittedError("other number of boxes", "there are more <ref-object> than names")
            yield {"type": "text", "text": name}
        elif part:
            yield {"type": "text", "text": part}


_ROWS_GET = "a file of such rows, .json or .jsonl"
_ANY = ("train", "val", "test")

FORMATS = (
    Format(
        "coco_detection",
        "COCO detection JSON (instances)",
        "your own",
        "that of the data set (COCO: CC BY 4.0)",
        "your file, or COCO's instances_train2017.json; a file may be named instead of the folder",
        "as `file_name` says; COCO's in train2017/, val2017/",
        {
            "train": Split(("instances_train2017.json",), 118_287, "train2017"),
            "val": Split(("instances_val2017.json",), 5_000, "val2017"),
            "own": Split(("*annotations*.json",)),
        },
        coco_detection_records,
        _coco_detection_rows,
        unit="records",
    ),
    Format(
        "yolo",
        "YOLO text files",
        "your own",
        "that of the data set",
        "data.yaml (or classes.txt); labels/<split>/*.txt or <split>/labels/*.txt: class, center, width, height, or a "
        "polygon",
        "images/<split>/*.jpg or <split>/images/*.jpg",
        {name: Split((f"labels/{name}/*.txt",)) for name in _ANY} | {"all": Split(("labels/*.txt",))},
        yolo_records,
        _yolo_rows,
        unit="records",
    ),
    Format(
        "voc",
        "Pascal VOC XML",
        "your own",
        "that of the data set",
        "Annotations/*.xml; ImageSets/Main/<split>.txt where there are splits",
        "JPEGImages/*.jpg",
        {name: Split(("Annotations/*.xml",)) for name in ("train", "val", "trainval", "test")},
        voc_records,
        _voc_rows,
        unit="records",
    ),
    Format(
        "llamafactory",
        "LLaMA-Factory's rows (alpaca, sharegpt, openai)",
        "your own",
        "yours",
        _ROWS_GET,
        "as `images` says",
        {"train": Split(("*.json*",))},
        list_or_lines,
        _llamafactory_rows,
        unit="records",
    ),
    Format(
        "swift",
        "ms-swift's rows (messages, images, objects)",
        "your own",
        "yours",
        _ROWS_GET,
        "as `images` says",
        {"train": Split(("*.json*",))},
        list_or_lines,
        _swift_rows,
        unit="records",
    ),
)
