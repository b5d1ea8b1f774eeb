"""Questions about images: VQAv2, OKVQA, A-OKVQA, GQA, VizWiz, ScienceQA, Visual7W."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .boxes import from_xywh
from .disk_index import DiskIndex
from .folder import COCO_STARTS, Folder, Split, coco_names, picture_names
from .formats import Format, Record, Region, Row, answers_of, field_of, missing_field, text_of, texts_of
from .json_stream import stream_elements, stream_members
from .messages import LETTERS
from .omissions import OmittedError

# ---------------------------------------------------------------- VQAv2 and OKVQA


def joined_records(folder: Folder) -> Iterator[Record]:
    """Yield the questions of the split's first file with the annotations of the second, joined by question id.

    A split without public answers has no second file, and no annotations.
    """
    questions = folder.file(0)
    if not folder.split.has_answers:
        for question in stream_elements(questions, "questions"):
            key = question.get("question_id") if _is_object(question) else None
            yield f"{questions.name}, question {key}", (question, {})
        return
    annotations = folder.file(1)
    entries = ((one.get("question_id"), one) for one in stream_elements(annotations, "annotations") if _is_object(one))
    with DiskIndex(_reduced(entries)) as index:
        for question in stream_elements(questions, "questions"):
            key = question.get("question_id") if _is_object(question) else None
            yield f"{questions.name}, question {key}", (question, index.get(key))
        keys = index.count_keys()
        for kind, count in (
            ("annotation without a question", keys - index.count_found()),
            ("repeated annotation", len(index) - keys),
        ):
            if count:
                folder.omissions.add(annotations.name, OmittedError(kind, f"{count:,} of them"), count)


def _reduced(entries: Iterable[tuple[Any, dict[str, Any]]]) -> Iterator[tuple[Any, Any]]:
    """Keep answers and types alone: confidences would double the index."""
    for key, entry in entries:
        answers = entry.get("answers")
        if isinstance(answers, list):
            answers = [one.get("answer") if _is_object(one) else one for one in answers]
        else:
            answers = entry.get("multiple_choice_answer")
        kinds = {name: entry[name] for name in ("question_type", "answer_type") if isinstance(entry.get(name), str)}
        yield key, {"answers": answers, **kinds}


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _vqa_rows(folder: Folder, record: tuple[dict[str, Any], Any]) -> Iterable[Row]:
    question, annotation = record
    key, text, image = field_of(question, "question_id"), text_of(question, "question"), field_of(question, "image_id")
    if annotation is None:
        raise OmittedError("question without an annotation", f"question {key}")
    picture = folder.picture(coco_names(image, folder.split.pictures), COCO_STARTS)
    answers = answers_of(folder, annotation, "answers", keeps_empty=True)
    groups = {
        name.replace("_", " "): annotation[name] for name in ("question_type", "answer_type") if name in annotation
    }
    yield Row(str(key), [picture], "vqa", text, answers, groups=groups)


def _vqa_split(questions: str, annotations: str, pictures: str, size: int) -> Split:
    return Split((questions, annotations), size, pictures)


# ---------------------------------------------------------------- lists of questions


def list_records(folder: Folder) -> Iterator[Record]:
    """Yield the records of a file that is one list."""
    path = folder.file()
    for number, entry in enumerate(stream_elements(path)):
        yield f"{path.name}, record {number}", entry


def _aokvqa_rows(folder: Folder, record: dict[str, Any]) -> Iterable[Row]:
    key, question = text_of(record, "question_id"), text_of(record, "question")
    picture = folder.picture(coco_names(field_of(record, "image_id"), folder.split.pictures), COCO_STARTS)
    choices = texts_of(field_of(record, "choices"), "choices")
    right = _choose(choices, field_of(record, "correct_choice_idx"), "correct_choice_idx")
    yield Row(key, [picture], "choice", question, [right], choices)
    direct = field_of(record, "direct_answers")
    if record.get("difficult_direct_answer") is not True:
        yield Row(f"{key}/direct", [picture], "vqa", question, texts_of(direct, "direct_answers"))


def _choose(choices: list[str], index: Any, name: str) -> str:
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(choices):
        raise OmittedError("no right choice", f"{name} is {index!r:.40}, and there are {len(choices)} choices")
    if len(choices) > len(LETTERS):
        raise OmittedError("too many choices", f"{len(choices)} choices, and {len(LETTERS)} letters")
    return choices[index]


def _vizwiz_rows(folder: Folder, record: dict[str, Any]) -> Iterable[Row]:
    image, question = text_of(record, "image"), text_of(record, "question")
    starts = ("", f"{folder.split_name}/", f"images/{folder.split_name}/", "images/")
    picture = folder.picture(image, starts)
    answers, groups = [], {}
    if folder.split.has_answers:
        answers = texts_of([field_of(one, "answer") for one in field_of(record, "answers")], "answers", True)
        groups = {"answer type": record["answer_type"]} if isinstance(record.get("answer_type"), str) else {}
    yield Row(image, [picture], "vqa", question, answers, groups=groups)


# ---------------------------------------------------------------- mappings of questions


def member_records(folder: Folder) -> Iterator[Record]:
    """Yield the members of a file that is one object, as pairs of key and value."""
    path = folder.file()
    for key, entry in stream_members(path):
        yield f"{path.name}, question {key}", (key, entry)


def _gqa_rows(folder: Folder, record: tuple[str, dict[str, Any]]) -> Iterable[Row]:
    key, entry = record
    image = field_of(entry, "imageId")
    picture = folder.picture(picture_names(str(image)), ("images/", "", "gqa/images/"))
    identity = f"vg/{image}" if str(image).isdecimal() else ""  # GQA's images are Visual Genome's, but for "n..."
    question, answer = text_of(entry, "question"), text_of(entry, "answer")
    types: Any = entry.get("types")
    kind = types.get("structural") if _is_object(types) else None
    groups = {"question type": kind} if isinstance(kind, str) else {}
    yield Row(key, [picture], "vqa", question, [answer], identity=identity, groups=groups)


def scienceqa_records(folder: Folder) -> Iterator[Record]:
    """Yield the problems of a split, as the file of splits lists them."""
    listed = folder.file(1)
    wanted = {one for name, ids in stream_members(listed) if name == folder.split_name for one in map(str, ids)}
    path = folder.file(0)
    for key, entry in stream_members(path):
        if key in wanted:
            wanted.remove(key)
            yield f"{path.name}, problem {key}", (key, entry)
    for key in sorted(wanted):
        yield f"{listed.name}, problem {key}", OmittedError("missing problem", f"it is not in {path.name}")


def _scienceqa_rows(folder: Folder, record: tuple[str, dict[str, Any]]) -> Iterable[Row]:
    key, entry = record
    question, choices = text_of(entry, "question"), texts_of(field_of(entry, "choices"), "choices")
    right = _choose(choices, field_of(entry, "answer"), "answer")
    images = []
    if (name := field_of(entry, "image")) is not None:
        start = f"{folder.split_name}/{key}/"
        images = [folder.picture(str(name), (start, f"images/{start}", f"ScienceQA/{start}"))]
    hint = entry.get("hint")
    context = f"{hint.strip()}\n" if isinstance(hint, str) and hint.strip() else ""
    groups = {"context": "picture" if images else "text" if context else "none"}
    groups |= {"subject": entry["subject"]} if isinstance(entry.get("subject"), str) else {}
    yield Row(key, images, "choice", context + question, [right], choices, groups=groups)


# ---------------------------------------------------------------- Visual7W


def visual7w_records(folder: Folder) -> Iterator[Record]:
    """Yield the questions of a split, each with its image and, where answers are boxes, its boxes by number."""
    path = folder.file()
    boxes = ((one.get("box_id"), one) for one in _boxes_of(path) if _is_object(one))
    with DiskIndex(boxes) as index:
        for image in stream_elements(path, "images"):
            if not _is_object(image) or "qa_pairs" not in image:
                yield f"{path.name}, image {image!r:.40}", OmittedError("no field 'qa_pairs'", f"{image!r:.60}")
                continue
            if image.get("split") not in _SPLITS_7W:
                error = OmittedError.of_unknown_split(image.get("split"), _SPLITS_7W)
                yield f"{path.name}, image {image.get('image_id')}", error
            if image.get("split") != folder.split_name:
                continue
            for one in image["qa_pairs"]:
                numbers = [one.get("answer"), *(one.get("multiple_choices") or [])] if _is_object(one) else []
                found = {number: index.get(number) for number in numbers if isinstance(number, int)}
                place = f"{path.name}, question {one.get('qa_id') if _is_object(one) else one}"
                yield place, (image, one, found)


def _boxes_of(path: Any) -> Iterator[Any]:
    if "pointing" in path.name:
        yield from stream_elements(path, "boxes")


def _visual7w_rows(folder: Folder, record: tuple[Mapping[str, Any], Mapping[str, Any], Any]) -> Iterable[Row]:
    image, one, boxes = record
    picture = folder.picture(text_of(image, "filename"), ("", "images/"))
    question, key = text_of(one, "question"), str(field_of(one, "qa_id"))
    answer, wrong = field_of(one, "answer"), field_of(one, "multiple_choices")
    if isinstance(answer, str):
        yield Row(key, [picture], "choice", question, [answer.strip()], texts_of([answer, *wrong], "multiple_choices"))
        return
    regions = [_visual7w_region(folder, picture, number, boxes.get(number)) for number in (answer, *wrong)]
    yield Row(key, [picture], "point", question, regions=regions)


def _visual7w_region(folder: Folder, picture: str, number: Any, box: Any) -> Region:
    if not isinstance(box, dict):
        raise OmittedError("no box", f"box {number!r:.40} is not in the file")
    try:
        values = [box[name] for name in ("x", "y", "width", "height")]
    except KeyError:
        raise missing_field(box, "x", "y", "width", "height") from None
    return Region(str(box.get("name") or ""), from_xywh(values, folder.size(picture)))


_COCO = "images of COCO: train2014/COCO_train2014_*.jpg, val2014/...; also below images/ or coco/"
_SPLITS_7W = {"train": (69_817, 93_813), "val": (28_020, 36_990), "test": (42_031, 57_265)}

FORMATS = (
    Format(
        "vqav2",
        "VQAv2",
        "vqa",
        "CC BY 4.0",
        "visualqa.org: v2_Questions_*.zip and v2_Annotations_*.zip",
        _COCO,
        {
            name: _vqa_split(
                f"v2_OpenEnded_mscoco_{pictures}_questions.json", f"v2_mscoco_{pictures}_annotations.json", pictures, n
            )
            for name, pictures, n in (("train", "train2014", 443_757), ("val", "val2014", 214_354))
        }
        | {
            name: Split((f"v2_OpenEnded_mscoco_{part}_questions.json",), size, "test2015", has_answers=False)
            for name, part, size in (("testdev", "test-dev2015", 107_394), ("test", "test2015", 447_793))
        },
        joined_records,
        _vqa_rows,
        source="coco",
    ),
    Format(
        "okvqa",
        "OK-VQA (the field `answer`, which is stemmed)",
        "vqa",
        "CC BY 4.0",
        "okvqa.allenai.org: OpenEnded_mscoco_*_questions.json, mscoco_*_annotations.json",
        _COCO,
        {
            name: _vqa_split(
                f"OpenEnded_mscoco_{pictures}_questions.json", f"mscoco_{pictures}_annotations.json", pictures, n
            )
            for name, pictures, n in (("train", "train2014", 9_009), ("val", "val2014", 5_046))
        },
        joined_records,
        _vqa_rows,
        source="coco",
    ),
    Format(
        "aokvqa",
        "A-OKVQA (choices, and direct answers)",
        "vqa",
        "Apache-2.0",
        "allenai.org/project/a-okvqa: aokvqa_v1p0_train.json, aokvqa_v1p0_val.json",
        "images of COCO 2017: train2017/*.jpg, val2017/*.jpg",
        {
            "train": Split(("aokvqa_v1p0_train.json",), 17_056, "train2017"),
            "val": Split(("aokvqa_v1p0_val.json",), 1_145, "val2017"),
        },
        list_records,
        _aokvqa_rows,
        unit="records",
        source="coco",
    ),
    Format(
        "gqa",
        "GQA, balanced",
        "vqa",
        "CC BY 4.0",
        "gqadataset.org: questions1.2.zip and images.zip",
        "images/*.jpg",
        {
            "train": Split(("train_balanced_questions.json",), 943_000),
            "val": Split(("val_balanced_questions.json",), 132_062),
            "testdev": Split(("testdev_balanced_questions.json",), 12_578),
        },
        member_records,
        _gqa_rows,
        source="gqa",
    ),
    Format(
        "vizwiz",
        "VizWiz VQA",
        "vqa",
        "CC BY 4.0",
        "vizwiz.org: Annotations.zip, train.zip, val.zip",
        "train/VizWiz_train_*.jpg, val/VizWiz_val_*.jpg",
        {
            "train": Split(("train.json",), 20_523),
            "val": Split(("val.json",), 4_319),
            "test": Split(("test.json",), 8_000, has_answers=False),
        },
        list_records,
        _vizwiz_rows,
        source="vizwiz",
    ),
    Format(
        "scienceqa",
        "ScienceQA",
        "vqa",
        "CC BY-NC-SA 4.0",
        "scienceqa.github.io: problems.json, pid_splits.json, and the images of the splits",
        "train/<id>/image.png, val/..., test/...; also below images/",
        {
            name: Split(("problems.json", "pid_splits.json"), size)
            for name, size in (("train", 12_726), ("val", 4_241), ("test", 4_241))
        },
        scienceqa_records,
        _scienceqa_rows,
        source="scienceqa",
    ),
    *(
        Format(
            f"visual7w_{kind}",
            f"Visual7W, {kind}",
            "vqa",
            "MIT (toolkit); images: COCO and Visual Genome",
            f"the authors' site: dataset_v7w_{kind}.zip and the images",
            "images/v7w_*.jpg",
            {name: Split((f"dataset_v7w_{kind}.json",), sizes[place]) for name, sizes in _SPLITS_7W.items()},
            visual7w_records,
            _visual7w_rows,
            source="visual7w",
        )
        for place, kind in enumerate(("telling", "pointing"))
    ),
)
