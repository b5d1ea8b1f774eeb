"""Captions: COCO (official and Karpathy's split), Flickr30k, NoCaps, TextCaps, ShareGPT4V."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from .dialogue import conversation_of
from .disk_index import DiskIndex
from .folder import COCO_STARTS, Folder, Split, coco_names, picture_names
from .formats import Format, Record, Row, field_of, text_of, texts_of
from .json_stream import stream_elements
from .omissions import OmittedError

_KARPATHY = ("train", "restval", "val", "test")  # words of the field `split`
Grouped = tuple[dict[str, Any], list[str]]  # an image, and its captions


def records_by_image(folder: Folder, caption: str = "caption") -> Iterator[Record]:
    """Yield the images of a file of COCO's shape with their captions."""
    path = folder.file()
    entries = _objects(path, "annotations") if folder.split.has_answers else ()
    annotations = ((entry.get("image_id"), entry.get(caption)) for entry in entries)
    with DiskIndex(annotations) as captions:
        for image in _objects(path, "images"):
            yield f"{path.name}, image {image.get('id')}", (image, captions.all(image.get("id")))


def _objects(path: Path, key: str) -> Iterator[dict[str, Any]]:
    return (entry for entry in stream_elements(path, key) if isinstance(entry, dict))


def _coco_rows(folder: Folder, record: Grouped) -> Iterable[Row]:
    image, captions = record
    number, name = field_of(image, "id"), text_of(image, "file_name")
    subset = folder.split.pictures
    picture = folder.picture([f"{subset}/{name}", name, *coco_names(number, subset)], COCO_STARTS)
    yield Row(str(number), [picture], "caption", answers=_captions(captions))


def _nocaps_rows(folder: Folder, record: Grouped) -> Iterable[Row]:
    image, captions = record
    name = text_of(image, "file_name")
    picture = folder.picture(name, ("", "images/", "val/", "nocaps/", "nocaps/images/", "images/val/"))
    groups = {"domain": image["domain"]} if isinstance(image.get("domain"), str) else {}
    answers = _captions(captions) if folder.split.has_answers else []
    yield Row(str(field_of(image, "id")), [picture], "caption", answers=answers, groups=groups)


def _captions(captions: list[Any]) -> list[str]:
    if not captions:
        raise OmittedError("no caption", "no annotation names this image")
    return texts_of(captions, "caption")


def karpathy_records(folder: Folder, splits: tuple[str, ...]) -> Iterator[Record]:
    """Yield the images of Karpathy's file that belong to some splits."""
    path = folder.file()
    for image in stream_elements(path, "images"):
        place = f"{path.name}, image {_name(image)}"
        if not isinstance(image, dict) or image.get("split") in splits or "split" not in image:
            yield place, image
        elif image["split"] not in _KARPATHY:
            yield place, OmittedError.of_unknown_split(image["split"], _KARPATHY)


def _name(image: Any) -> Any:
    return image.get("filename") if isinstance(image, dict) else image


def _karpathy_records(folder: Folder) -> Iterator[Record]:
    wanted = ("train", "restval") if folder.split_name == "train" else (folder.split_name,)
    return karpathy_records(folder, wanted)


def _karpathy_rows(folder: Folder, image: dict[str, Any], starts: tuple[str, ...]) -> Iterable[Row]:
    name, _ = text_of(image, "filename"), text_of(image, "split")
    start = image.get("filepath") or ""
    names = [f"{start}/{name}", name] if start else [name]
    if isinstance(number := image.get("cocoid"), int):
        names += coco_names(number, start or "train2014")
    captions = texts_of([text_of(sentence, "raw") for sentence in field_of(image, "sentences")], "sentences")
    key = image.get("cocoid", image.get("imgid", name))
    yield Row(str(key), [folder.picture(names, starts)], "caption", answers=captions)


def _flickr_records(folder: Folder) -> Iterator[Record]:
    """Yield the images of a split of Karpathy's file; or those of the authors' file (`NAME#N<TAB>caption` a line)."""
    if folder.split_name != "all":
        yield from _karpathy_records(folder)
        return
    path = folder.file()
    with open(path, encoding="utf-8-sig") as file:
        try:
            lines = (line.strip() for line in file if line.strip())
            for name, group in groupby(lines, lambda line: line.partition("#")[0]):
                yield f"{path.name}, image {name:.80}", (name, [line.partition("\t")[2] for line in group])
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} cannot be read: it is not UTF-8: {error.reason}.") from error


def _flickr_rows(folder: Folder, record: Any) -> Iterable[Row]:
    if not isinstance(record, tuple):
        yield from _karpathy_rows(folder, record, _FLICKR_STARTS)
        return
    name, captions = record
    yield Row(name, [folder.picture(name, _FLICKR_STARTS)], "caption", answers=texts_of(captions, "caption"))


def textcaps_records(folder: Folder) -> Iterator[Record]:
    """Yield each image of TextCaps once, with all captions: its records are captions."""
    path = folder.file()
    with DiskIndex((one.get("image_id"), one.get("caption_str")) for one in _objects(path, "data")) as captions:
        seen: set[str] = set()
        for entry in stream_elements(path, "data"):
            key = entry.get("image_id") if isinstance(entry, dict) else None
            if key is not None and str(key) in seen:
                continue
            seen.add(str(key))
            found = [caption for caption in captions.all(key) if caption is not None] if key is not None else []
            yield f"{path.name}, image {key}", (entry, found)


def _textcaps_rows(folder: Folder, record: Grouped) -> Iterable[Row]:
    image, captions = record
    key = text_of(image, "image_id")
    picture = folder.picture(picture_names(key), ("", "train_images/", "images/", "train_val_images/train_images/"))
    captions = captions or field_of(image, "reference_strs", "caption_str")
    yield Row(key, [picture], "caption", answers=texts_of(captions, "caption_str"))


def sharegpt4v_records(folder: Folder) -> Iterator[Record]:
    """Yield the records of a list of conversations."""
    path = folder.file()
    for number, entry in enumerate(stream_elements(path)):
        yield f"{path.name}, record {number}", entry


def _sharegpt4v_rows(folder: Folder, record: dict[str, Any]) -> Iterable[Row]:
    picture = folder.picture(text_of(record, "image"), ("", "images/", "data/"))
    conversation = conversation_of(record)
    if len(conversation) != 2:
        raise OmittedError("malformed record", f"a description has a question and an answer, not {len(conversation)}")
    yield Row(str(field_of(record, "id")), [picture], "detailed_caption", answers=[conversation[1][1]])


def _coco_splits(**sizes: int) -> dict[str, Split]:
    return {name: Split((f"captions_{name}.json",), size, name) for name, size in sizes.items()}


_FLICKR_STARTS = ("", "images/", "flickr30k-images/", "flickr30k_images/", "Images/")
_COCO_GET = "cocodataset.org: {}; the images train2014, val2014 (or train2017, val2017)"

FORMATS = (
    Format(
        "coco_captions",
        "COCO captions, official",
        "captions",
        "CC BY 4.0 (annotations); images: Flickr terms",
        _COCO_GET.format("annotations_trainval2014.zip or 2017"),
        "train2014/COCO_train2014_*.jpg, val2014/..., or train2017/*.jpg; also below images/ or coco/",
        _coco_splits(train2014=82_783, val2014=40_504, train2017=118_287, val2017=5_000),
        records_by_image,
        _coco_rows,
        source="coco",
    ),
    Format(
        "coco_karpathy",
        "COCO captions, Karpathy's split (restval belongs to train)",
        "captions",
        "CC BY 4.0 (annotations); images: Flickr terms",
        _COCO_GET.format("images; dataset_coco.json of Karpathy's caption_datasets.zip"),
        "train2014/COCO_train2014_*.jpg, val2014/...; also below images/ or coco/",
        {
            "train": Split(("dataset_coco.json",), 113_287),
            "val": Split(("dataset_coco.json",), 5_000),
            "test": Split(("dataset_coco.json",), 5_000),
        },
        _karpathy_records,
        partial(_karpathy_rows, starts=COCO_STARTS),
        source="coco",
    ),
    Format(
        "flickr30k",
        "Flickr30k, Karpathy's split (all: the authors' file)",
        "captions",
        "CC BY 4.0 (captions of the authors' site); images: Flickr terms",
        "the images from the authors' form; dataset_flickr30k.json of Karpathy's caption_datasets.zip, or the "
        "authors' results_20130124.token (all images, without splits)",
        "flickr30k-images/*.jpg or images/*.jpg",
        {
            "train": Split(("dataset_flickr30k.json",), 29_000),
            "val": Split(("dataset_flickr30k.json",), 1_014),
            "test": Split(("dataset_flickr30k.json",), 1_000),
            "all": Split(("results_20130124.token|results.token",), 31_783),
        },
        _flickr_records,
        _flickr_rows,
        source="flickr30k",
    ),
    Format(
        "nocaps",
        "NoCaps",
        "captions",
        "CC BY 2.0",
        "nocaps.org: nocaps_val_4500_captions.json, and its Open Images images",
        "*.jpg, or images/*.jpg",
        {
            "val": Split(("nocaps_val_4500_captions.json",), 4_500),
            "test": Split(("nocaps_test_image_info.json",), 10_600, has_answers=False),
        },
        records_by_image,
        _nocaps_rows,
        source="openimages",
    ),
    Format(
        "textcaps",
        "TextCaps",
        "captions",
        "CC BY 4.0",
        "textvqa.org/textcaps: TextCaps_0.1_train.json, TextCaps_0.1_val.json, train_val_images.zip",
        "train_images/*.jpg",
        {
            "train": Split(("TextCaps_0.1_train.json",), 21_953),
            "val": Split(("TextCaps_0.1_val.json",), 3_166),
        },
        textcaps_records,
        _textcaps_rows,
        source="openimages",
    ),
    Format(
        "sharegpt4v",
        "ShareGPT4V descriptions",
        "captions",
        "CC BY-NC 4.0",
        "sharegpt4v_instruct_gpt4-vision_cap100k.json, share-captioner_coco_lcs_sam_1246k_1107.json, and the images "
        "of COCO, LCS, SAM, WebData",
        "as the field `image` says, such as coco/train2017/*.jpg",
        {
            "train": Split(("sharegpt4v_instruct_gpt4-vision_cap100k.json",)),
            "pretrain": Split(("share-captioner_coco_lcs_sam_1246k_1107.json",)),
        },
        sharegpt4v_records,
        _sharegpt4v_rows,
    ),
)
