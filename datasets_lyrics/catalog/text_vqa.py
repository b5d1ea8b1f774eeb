"""Questions about text in images: TextVQA, ST-VQA, OCR-VQA, DocVQA."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from .folder import Folder, Split, picture_names
from .formats import Format, Record, Row, answers_of, field_of, text_of, texts_of
from .json_stream import stream_elements, stream_members
from .omissions import OmittedError

_SPLIT_NUMBERS = {"train": 1, "val": 2, "test": 3}  # of OCR-VQA


def data_records(folder: Folder) -> Iterator[Record]:
    """Yield the elements of the list under `data`."""
    path = folder.file()
    for number, entry in enumerate(stream_elements(path, "data")):
        yield f"{path.name}, record {number}", entry


def _rows(
    folder: Folder,
    record: dict[str, Any],
    key: tuple[str, ...],
    image: str,
    starts: tuple[str, ...],
    add_extension: bool = False,
    has_annotators: bool = False,
) -> Iterable[Row]:
    """Return the row of a record with question and answers.

    Args:
        folder: folder of the images.
        record: mapping.
        key, image: names of the fields of the id and of the image.
        starts: folders of the images.
        add_extension: bool, whether the image's field is a name without its extension.
        has_annotators: bool, whether each answer is that of an annotator, who may have said nothing.
    """
    number, name, question = field_of(record, *key), text_of(record, image), text_of(record, "question")
    picture = folder.picture(picture_names(name) if add_extension else name, starts)
    yield Row(str(number), [picture], "text_vqa", question, answers_of(folder, record, "answers", has_annotators))


def ocrvqa_records(folder: Folder) -> Iterator[Record]:
    """Yield the books of a split of OCR-VQA, with their keys."""
    path = folder.file()
    wanted = _SPLIT_NUMBERS[folder.split_name]
    for key, book in stream_members(path):
        number = book.get("split", wanted) if isinstance(book, dict) else wanted
        if number == wanted:
            yield f"{path.name}, book {key}", (key, book)
        elif number not in _SPLIT_NUMBERS.values():
            yield f"{path.name}, book {key}", OmittedError.of_unknown_split(number, _SPLIT_NUMBERS.values())


def _ocrvqa_rows(folder: Folder, record: tuple[str, dict[str, Any]]) -> Iterable[Row]:
    key, book = record
    field_of(book, "split")
    extension = os.path.splitext(PurePosixPath(urlsplit(text_of(book, "imageURL")).path).name)[1] or ".jpg"
    picture = folder.picture([f"{key}{extension}", *picture_names(key)], ("images/", "", "ocr_vqa/images/"))
    questions, answers = field_of(book, "questions"), field_of(book, "answers")
    if len(questions) != len(answers):
        raise OmittedError("malformed record", f"{len(questions)} questions and {len(answers)} answers")
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        question, answer = texts_of(question, "questions")[0], texts_of(answer, "answers")[0]
        yield Row(f"{key}/{number}", [picture], "text_vqa", question, [answer])


FORMATS = (
    Format(
        "textvqa",
        "TextVQA (without OCR tokens)",
        "text vqa",
        "CC BY 4.0",
        "textvqa.org: TextVQA_0.5.1_train.json, TextVQA_0.5.1_val.json, train_val_images.zip",
        "train_images/*.jpg",
        {
            "train": Split(("TextVQA_0.5.1_train.json",), 34_602),
            "val": Split(("TextVQA_0.5.1_val.json",), 5_000),
            "test": Split(("TextVQA_0.5.1_test.json",), 5_734, has_answers=False),
        },
        data_records,
        partial(
            _rows,
            key=("question_id",),
            image="image_id",
            starts=("train_images/", "", "images/", "train_val_images/train_images/", "test_images/"),
            add_extension=True,
            has_annotators=True,
        ),
        source="openimages",
    ),
    Format(
        "stvqa",
        "ST-VQA, task 3",
        "text vqa",
        "each image source its own; annotations CC BY 4.0",
        "rrc.cvc.uab.es: ST-VQA, train_task_3.json and the images",
        "as the field `file_path` says, such as coco-text/*.jpg",
        {"train": Split(("train_task_3.json",)), "test": Split(("test_task_3.json",), 4_070, has_answers=False)},
        data_records,
        partial(_rows, key=("question_id",), image="file_path", starts=("", "images/", "train/", "test/", "stvqa/")),
    ),
    Format(
        "ocrvqa",
        "OCR-VQA",
        "text vqa",
        "for research, as its authors say",
        "ocr-vqa.github.io: dataset.json, and the covers, each fetched from its URL and named after its key",
        "images/<key>.jpg",
        {name: Split(("dataset.json",)) for name in _SPLIT_NUMBERS},
        ocrvqa_records,
        _ocrvqa_rows,
        source="ocrvqa",
    ),
    Format(
        "docvqa",
        "DocVQA",
        "text vqa",
        "for research, as its authors say",
        "rrc.cvc.uab.es: DocVQA task 1, train_v1.0.json, val_v1.0.json and documents/",
        "documents/*.png",
        {
            "train": Split(("train_v1.0*.json",), 39_463),
            "val": Split(("val_v1.0*.json",), 5_349),
            "test": Split(("test_v1.0*.json",), 5_188, has_answers=False),
        },
        data_records,
        partial(_rows, key=("questionId",), image="image", starts=("", "train/", "val/", "test/", "images/")),
        source="docvqa",
    ),
)
