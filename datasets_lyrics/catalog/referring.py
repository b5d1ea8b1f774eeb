"""Referring and regions: RefCOCO, RefCOCO+, RefCOCOg, Flickr30k Entities, PointQA, Shikra's form."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from .boxes import from_xywh, from_xyxy
from .disk_index import DiskIndex
from .folder import COCO_STARTS, Folder, Split, coco_names
from .formats import Format, Record, Region, Row, field_of, text_of
from .json_stream import stream_elements, stream_lines
from .omissions import OmittedError
from .visual_genome import VG_STARTS
from .xml_files import read_voc

# ---------------------------------------------------------------- RefCOCO


class PlainUnpickler(pickle.Unpickler):
    """Unpickler of lists, dictionaries, texts and numbers; a pickle that names any class or function is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Refuse every class.

        Raises:
            pickle.UnpicklingError: always, with the name.
        """
        raise pickle.UnpicklingError(f"it wants {module_name}.{global_name}, and data needs no class")

    def persistent_load(self, pid: Any) -> Any:
        """Refuse every reference to something outside of the file."""
        raise pickle.UnpicklingError(f"it refers to {pid!r:.40} outside of the file")


def load_plain_pickle(path: Path) -> Any:
    """Load a pickle that holds data alone; no code of the file is run.

    Raises:
        ValueError: naming the file, when it is damaged or wants a class.
    """
    try:
        return PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="utf-8", errors="replace").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read: it is no pickle of plain data: {error}.") from error
    except (RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}.") from error


_SPLITS = ("train", "val", "test", "testA", "testB")


def _refcoco_records(folder: Folder, name: str, by: str) -> Iterator[Record]:
    refs = folder.named or folder.find(f"{name}/refs({by}).p", f"refs({by}).p")
    instances = refs.with_name("instances.json")
    if not instances.is_file():
        raise FileNotFoundError(f"There is no {instances}, which holds the boxes of {refs.name}.")
    loaded = load_plain_pickle(refs)
    if not isinstance(loaded, list):
        raise ValueError(f"{refs} holds no list of references, but a {type(loaded).__name__}.")
    with ExitStack() as stack:
        boxes = stack.enter_context(DiskIndex(_pairs(instances, "annotations", "id", ("bbox", "image_id"))))
        sizes = stack.enter_context(DiskIndex(_pairs(instances, "images", "id", ("width", "height"))))
        for ref in loaded:
            if not isinstance(ref, dict):
                yield f"{refs.name}, {ref!r:.40}", OmittedError("malformed record", "it is no mapping")
            elif ref.get("split", folder.split_name) not in _SPLITS:
                yield f"{refs.name}, ref {ref.get('ref_id')}", OmittedError.of_unknown_split(ref["split"], _SPLITS)
            elif ref.get("split", folder.split_name) == folder.split_name:
                place = f"{refs.name}, ref {ref.get('ref_id')}"
                yield place, (ref, boxes.get(ref.get("ann_id")), sizes.get(ref.get("image_id")))


def _pairs(path: Path, key: str, name: str, fields: tuple[str, ...]) -> Iterator[tuple[Any, list[Any]]]:
    for entry in stream_elements(path, key):
        if isinstance(entry, dict):
            yield entry.get(name), [entry.get(one) for one in fields]


def _refcoco_rows(folder: Folder, record: tuple[dict[str, Any], Any, Any]) -> Iterable[Row]:
    ref, annotation, size = record
    number, image = field_of(ref, "ref_id"), field_of(ref, "image_id")
    field_of(ref, "split")
    if annotation is None:
        raise OmittedError("no annotation", f"ann_id {field_of(ref, 'ann_id')} is not in instances.json")
    box, image_of_box = annotation
    if str(image_of_box) != str(image):
        detail = f"ann_id {ref['ann_id']} belongs to image {image_of_box}, not {image!r:.40}"
        raise OmittedError("box of another image", detail)
    if size is None:
        raise OmittedError("no size", f"image {image} is not in instances.json")
    picture = folder.picture(coco_names(image, "train2014"), COCO_STARTS)
    region = from_xywh(box, (size[0], size[1]))
    for sentence in field_of(ref, "sentences"):
        text = text_of(sentence, "sent", "raw")
        key = f"{number}/{field_of(sentence, 'sent_id')}"
        yield Row(key, [picture], "locate", regions=[Region(text, region)])


# ---------------------------------------------------------------- Flickr30k Entities

_ENTITY = re.compile(r"\[/EN#(\d{1,12})((?:/[^\s/\]]{1,40}){1,8})\s+([^\[\]]{1,400})\]")


def entities_records(folder: Folder) -> Iterator[Record]:
    """Yield the images of a split of Flickr30k Entities: number, captions, annotation file."""
    names = folder.file()
    for line in names.read_text(encoding="utf-8-sig").split():
        yield f"{names.name}, image {line}", line


def _entities_rows(folder: Folder, key: str) -> Iterable[Row]:
    if not key.isalnum():
        raise OmittedError("malformed record", f"{key!r:.40} is no image")
    picture = folder.picture(f"{key}.jpg", ("flickr30k-images/", "images/", "flickr30k_images/", ""))
    sentences = folder.root / "Sentences" / f"{key}.txt"
    if not sentences.is_file():
        raise OmittedError("missing annotation", f"there is no {sentences.name} in Sentences/")
    boxes: dict[str, list[list[float]]] = {}
    annotations = read_voc(folder.root / "Annotations" / f"{key}.xml")
    for fault in annotations.faults:
        folder.omissions.add(f"{key}.xml", fault)
    for one in annotations.objects:
        for name in one.names:
            boxes.setdefault(name, []).extend(one.boxes)
    for number, line in enumerate(sentences.read_text(encoding="utf-8-sig").splitlines()):
        if line.strip():
            yield _grounded_caption(f"{key}/{number}", picture, line.strip(), boxes)


def _grounded_caption(key: str, picture: str, line: str, boxes: dict[str, list[list[float]]]) -> Row:
    """Return the row of a caption whose phrases are followed by the boxes of their entities."""
    blocks: list[dict[str, Any]] = []
    plain, regions, end = "", [], 0
    for match in _ENTITY.finditer(line):
        entity, _, words = match.groups()
        before = line[end : match.start()]
        plain, end = plain + before + words, match.end()
        blocks.append({"type": "text", "text": before + words})
        for box in boxes.get(entity, []):
            blocks += [{"type": "text", "text": " "}, {"type": "box", "box": box}]
            regions.append(Region(words, box))
    blocks.append({"type": "text", "text": line[end:]})
    plain += line[end:]
    if "[/EN#" in plain:
        raise OmittedError("malformed record", f"an entity of {line!r:.80} cannot be read")
    messages = [
        {"role": "user", "content": [{"type": "image"}]},
        {"role": "assistant", "content": [block for block in blocks if block.get("text") != ""]},
    ]
    return Row(key, [picture], "grounded_caption", answers=[plain], regions=regions, messages=messages)


# ---------------------------------------------------------------- lines of JSON


def line_records(folder: Folder) -> Iterator[Record]:
    """Yield the records of a JSON Lines file."""
    path = folder.file()
    for number, entry in stream_lines(path):
        yield f"{path.name}, line {number}", entry


def _shikra_rows(folder: Folder, record: dict[str, Any]) -> Iterable[Row]:
    name, phrase = text_of(record, "img_path"), text_of(record, "expression")
    picture = folder.picture([name, *_coco_names_of(name)], COCO_STARTS)
    box = from_xyxy(field_of(record, "bbox"), folder.size(picture))
    yield Row(str(record.get("id", f"{name}/{phrase}")), [picture], "locate", regions=[Region(phrase, box)])


def _coco_names_of(name: str) -> list[str]:
    match = re.search(r"(\d{12})\.jpg$", name)
    return coco_names(match.group(1)) if match else []


def _pointqa_rows(folder: Folder, record: dict[str, Any]) -> Iterable[Row]:
    name, question, answer = text_of(record, "file_path"), text_of(record, "question"), text_of(record, "answer")
    picture = folder.picture([name, name.rpartition("/")[2]], VG_STARTS)
    box = from_xyxy(field_of(record, "bbox"), folder.size(picture))
    key = str(record.get("id", record.get("qa_id", f"{name}/{question}")))
    yield Row(key, [picture], "region_vqa", question, [answer], regions=[Region("", box)])


_REFCOCO = "CC BY 4.0 (COCO's annotations); expressions: Apache-2.0 (refer)"
_SIZES = {
    "refcoco": ("unc", {"train": 120_624, "val": 10_834, "testA": 5_657, "testB": 5_095}),
    "refcoco+": ("unc", {"train": 120_191, "val": 10_758, "testA": 5_726, "testB": 4_889}),
    "refcocog": ("umd", {"train": 80_512, "val": 4_896, "test": 9_602}),
}


def _refcoco(name: str, by: str, sizes: dict[str, int]) -> Format:
    return Format(
        name,
        f"{name.replace('refcoco', 'RefCOCO')} ({by} split)",
        "referring",
        _REFCOCO,
        f"github.com/lichengunc/refer: {name}.zip (refs({by}).p, instances.json); COCO train2014",
        "train2014/COCO_train2014_*.jpg for every split; also below images/ or coco/",
        {split: Split((f"refs({by}).p", "instances.json"), size) for split, size in sizes.items()},
        partial(_refcoco_records, name=name, by=by),
        _refcoco_rows,
        source="coco",
    )


FORMATS = (
    *(_refcoco(name, by, sizes) for name, (by, sizes) in _SIZES.items()),
    Format(
        "flickr30k_entities",
        "Flickr30k Entities",
        "referring",
        "CC BY-NC-SA 3.0 (annotations, as the authors' site says); images: Flickr terms",
        "github.com/BryanPlummer/flickr30k_entities: annotations.zip, train.txt, val.txt, test.txt; the images",
        "flickr30k-images/*.jpg or images/*.jpg; Sentences/ and Annotations/ in the root",
        {name: Split((f"{name}.txt",), size) for name, size in (("train", 29_783), ("val", 1_000), ("test", 1_000))},
        entities_records,
        _entities_rows,
        unit="records",
        source="flickr30k",
    ),
    Format(
        "pointqa",
        "PointQA, local (Shikra's lines)",
        "referring",
        "as the authors of PointQA say",
        "github.com/shikras/shikra: pointQA_local_train.jsonl; images of Visual Genome",
        "VG_100K/*.jpg and VG_100K_2/*.jpg",
        {
            "train": Split(("point[Qq][Aa]_local_train.jsonl",)),
            "val": Split(("point[Qq][Aa]_local_val.jsonl",)),
        },
        line_records,
        _pointqa_rows,
        source="vg",
    ),
    Format(
        "shikra",
        "Shikra's form of references (img_path, expression, bbox)",
        "referring",
        "that of the data set",
        "github.com/shikras/shikra: REC_ref3_train.jsonl, or any file of such lines",
        "as the field `img_path` says; COCO's also in train2014/",
        {"train": Split(("*train*.jsonl",)), "val": Split(("*val*.jsonl",)), "test": Split(("*test*.jsonl",))},
        line_records,
        _shikra_rows,
    ),
)
