"""Types of the catalog: a format is a table entry that says where a data set lies and how its records become rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .folder import Folder, Split
from .omissions import OmittedError

Task = Literal[
    "caption",  # answers: captions of the image
    "detailed_caption",  # answers: long descriptions
    "vqa",  # question, answers (one for each person)
    "text_vqa",  # the same, about text in the image
    "choice",  # question, choices, answers: the right choice
    "locate",  # regions of one phrase, to be found
    "describe_region",  # one region, whose phrase is to be said
    "region_vqa",  # question about the regions, answers
    "point",  # question, answered with the regions
    "grounded_caption",  # messages: a caption with boxes behind its phrases
    "detect",  # regions: all objects with their names
    "dialogue",  # messages, as the data set has them
]
Family = Literal["captions", "vqa", "text vqa", "referring", "dialogue", "benchmarks", "your own"]
Record = tuple[str, Any]  # place for messages (file and record), and the record


@dataclass(frozen=True)
class Region:
    """A box and its phrase.

    Attributes:
        phrase: str, words for what is in the box; empty where there are none.
        box: xyxy in [0, 1].
    """

    phrase: str
    box: list[float]


@dataclass
class Row:
    """One row of a data set; which fields are filled depends on `task`.

    Attributes:
        id: str, as the data set has it, unique in the split where the data set's are.
        images: list of paths relative to the root.
        task: see `Task`.
        question: str.
        answers: list of strings, every answer that the data set has; for a caption every caption. Where annotators are
            counted (VQA accuracy), an empty answer is one, too.
        choices: list of strings.
        regions: list of `Region`.
        messages: list of messages with blocks, for tasks whose text cannot be written from the other fields.
        identity: str, identity of the image across data sets, such as `coco/7`; empty where the path says it.
        groups: dictionary of the groups that scores are reported for, such as `{"answer type": "number"}`; only for
            evaluation, and not stored with the row.
    """

    id: str
    images: list[str]
    task: Task
    question: str = ""
    answers: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    identity: str = ""
    groups: dict[str, str] = field(default_factory=dict)

    def texts(self) -> Iterator[str]:
        """Yield every text of the row."""
        yield from (self.id, self.question, self.identity, *self.images, *self.answers, *self.choices)
        yield from (region.phrase for region in self.regions)
        for message in self.messages:
            yield from (block["text"] for block in message["content"] if "text" in block)


@dataclass(frozen=True)
class Format:
    """A data set as it is distributed.

    Attributes:
        name: str, word of the data set in `NAME:ROOT`.
        title: str, name as the field writes it.
        family: see `Family`.
        license: str, of the annotations, as their authors state it.
        get: str, what to download.
        layout: str, where the images must lie below the root.
        splits: splits by name; the first is the default.
        records: function of a folder, which yields place and record.
        rows: function of a folder and a record, which returns its rows and raises `OmittedError`.
        unit: thing that `Split.size` counts: rows, or records of the file.
        source: str, where the images come from: equal names of one source are one image.
    """

    name: str
    title: str
    family: Family
    license: str
    get: str
    layout: str
    splits: Mapping[str, Split]
    records: Callable[[Folder], Iterator[Record]]
    rows: Callable[[Folder, Any], Iterable[Row]]
    unit: Literal["rows", "records"] = "rows"
    source: str = ""


def text_of(record: Mapping[str, Any], *names: str) -> str:
    """Return the first of some fields of a record as text without white space around it.

    Raises:
        OmittedError: when there is no such field, or it is empty or no text.
    """
    _require_mapping(record)
    for name in names:
        if name in record:
            value = record[name]
            if not isinstance(value, str):
                raise OmittedError("malformed record", f"{name!r} is no text but {value!r:.60}")
            if not value.strip():
                raise OmittedError("empty text", f"{name!r} is empty")
            return value.strip()
    raise missing_field(record, *names)


def field_of(record: Mapping[str, Any], *names: str) -> Any:
    """Return the first of some fields of a record.

    Raises:
        OmittedError: when there is none, with the names of those that there are.
    """
    _require_mapping(record)
    for name in names:
        if name in record:
            return record[name]
    raise missing_field(record, *names)


def texts_of(values: Any, name: str, keeps_empty: bool = False) -> list[str]:
    """Return the texts of a list without white space around them and without empty ones.

    Args:
        values: list of texts, or one text.
        name: name of the field in messages.
        keeps_empty: bool, whether empty ones stay beside others: an annotator who said nothing is one all the same.

    Raises:
        OmittedError: when it is no list of texts, or none is left.
    """
    values = [values] if isinstance(values, str) else values
    if not isinstance(values, Sequence) or not all(isinstance(value, str) for value in values):
        raise OmittedError("malformed record", f"{name!r} is no list of texts but {values!r:.60}")
    texts = [value.strip() for value in values]
    if not any(texts):
        raise OmittedError("empty text", f"{name!r} holds no text")
    return texts if keeps_empty else [text for text in texts if text]


def _require_mapping(record: Any) -> None:
    if not isinstance(record, Mapping):
        raise OmittedError("malformed record", f"it is no mapping of fields but {record!r:.60}")


def answers_of(folder: Folder, record: Mapping[str, Any], name: str, keeps_empty: bool = False) -> list[str]:
    """Return the answers in a field of a record; none in a split whose answers are not public.

    Raises:
        OmittedError: when they are public, and there is no such field, or it holds no text.
    """
    return texts_of(field_of(record, name), name, keeps_empty) if folder.split.has_answers else []


def missing_field(record: Mapping[str, Any], *names: str) -> OmittedError:
    """Return the error of a record without any of these fields."""
    wanted = " or ".join(map(repr, names))
    return OmittedError(f"no field {wanted}", f"its fields are {', '.join(map(repr, list(record)[:12]))}")
