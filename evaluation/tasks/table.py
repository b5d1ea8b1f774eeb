"""The table of tasks: where the data come from, how it is asked, how long an answer may be, how it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...datasets_lyrics.catalog.formats import Task as RowTask
from ...datasets_lyrics.catalog.wordings import WORDINGS
from . import submissions
from .scoring import (
    ANLS,
    BOX,
    CAPTIONS,
    CHOICE,
    DIRECT_ANSWER,
    EVALAI_VQA,
    EXACT_MATCH,
    JUDGED,
    METRICS,
    MME,
    NAMED_CHOICE,
    POPE,
    VQA,
    Metric,
)
from .submissions import Submission

# Prompts of LLaVA-1.5 and lmms-eval, which most published numbers were made with. Boxes have a format of their own in
# every model, so that they are asked for in the words of the training.
_SHORT = "{question}\nAnswer the question using a single word or phrase."
_MAY_BE_UNANSWERABLE = (
    "{question}\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
    "Answer the question using a single word or phrase."
)
LETTER = "{question}\n{choices}\nAnswer with the option's letter from the given choices directly."
_CAPTION = "Provide a one-sentence caption for the provided image."
_BOX = WORDINGS["locate"][0].replace("{name}", "{question}")
AS_IT_IS = "{question}"


@dataclass(frozen=True)
class Source:
    """Where the rows of a split come from.

    Attributes:
        data: str, name of the data set in the catalog.
        split: str, name of its split.
        tasks: tuple of the kinds of rows that are asked.
    """

    data: str
    split: str
    tasks: tuple[RowTask, ...]


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        name: str, word of the command line.
        title: str, name as the field writes it.
        splits: mapping from the name of a split to its source.
        default: tuple of the splits that are evaluated where none is named.
        prompt: str, text with `{question}` and `{choices}`.
        max_new_tokens: int, longest answer.
        metric: metric.
        submission: form of the file for a server, or `None`.
        note: str, what a reader of a number has to know, or empty.
        per_picture: bool, whether the questions of an image belong together when a part is drawn.
        is_judged: bool, whether another model judges the answers.
    """

    name: str
    title: str
    splits: Mapping[str, Source]
    default: tuple[str, ...]
    prompt: str
    max_new_tokens: int
    metric: Metric
    submission: Submission | None = None
    note: str = ""
    per_picture: bool = False
    is_judged: bool = False


def _splits(data: str, *names: str, tasks: tuple[RowTask, ...]) -> dict[str, Source]:
    return {name: Source(data, name, tasks) for name in names}


_OCR = "No OCR tokens are given in the prompt."
_LEADERBOARD = "The answers of the test split are on a server: the file of the submission is written."

_ALL = (
    Task(
        "coco_caption",
        "COCO captions",
        _splits("coco_karpathy", "test", "val", tasks=("caption",))
        | _splits("coco_captions", "val2014", "val2017", tasks=("caption",)),
        ("test",),
        _CAPTION,
        64,
        CAPTIONS,
        submissions.CAPTIONS,
        "The split `test` is Karpathy's.",
    ),
    Task(
        "flickr30k",
        "Flickr30k captions",
        _splits("flickr30k", "test", "val", tasks=("caption",)),
        ("test",),
        _CAPTION,
        64,
        CAPTIONS,
        note="Karpathy's split.",
    ),
    Task(
        "nocaps",
        "NoCaps",
        _splits("nocaps", "val", "test", tasks=("caption",)),
        ("val",),
        _CAPTION,
        64,
        CAPTIONS,
        submissions.CAPTIONS,
        _LEADERBOARD,
    ),
    Task(
        "textcaps",
        "TextCaps",
        _splits("textcaps", "val", tasks=("caption",)),
        ("val",),
        _CAPTION,
        64,
        CAPTIONS,
        submissions.TEXT_CAPS,
    ),
    Task(
        "vqav2",
        "VQAv2",
        _splits("vqav2", "val", "testdev", "test", tasks=("vqa",)),
        ("val",),
        _SHORT,
        16,
        VQA,
        submissions.VQA,
        _LEADERBOARD,
    ),
    Task(
        "okvqa",
        "OK-VQA",
        _splits("okvqa", "val", tasks=("vqa",)),
        ("val",),
        _SHORT,
        16,
        VQA,
        submissions.VQA,
        "Scored with the field `answer`, which is stemmed.",
    ),
    Task(
        "aokvqa",
        "A-OKVQA, multiple choice",
        _splits("aokvqa", "val", tasks=("choice",)),
        ("val",),
        LETTER,
        16,
        NAMED_CHOICE,
        submissions.CHOICES,
    ),
    Task(
        "aokvqa_direct",
        "A-OKVQA, direct answer",
        _splits("aokvqa", "val", tasks=("vqa",)),
        ("val",),
        _SHORT,
        16,
        DIRECT_ANSWER,
        note="Difficult questions are left out, as the leaderboard leaves them out.",
    ),
    Task(
        "gqa",
        "GQA",
        _splits("gqa", "testdev", "val", tasks=("vqa",)),
        ("testdev",),
        _SHORT,
        16,
        EXACT_MATCH,
        submissions.GQA,
        "Balanced questions.",
    ),
    Task(
        "vizwiz",
        "VizWiz VQA",
        _splits("vizwiz", "val", "test", tasks=("vqa",)),
        ("val",),
        _MAY_BE_UNANSWERABLE,
        16,
        VQA,
        submissions.VIZWIZ,
        _LEADERBOARD,
    ),
    Task(
        "scienceqa",
        "ScienceQA",
        _splits("scienceqa", "test", "val", tasks=("choice",)),
        ("test",),
        LETTER,
        16,
        CHOICE,
        note="All questions; the group `picture` of `context` is what the field calls ScienceQA-IMG.",
    ),
    Task(
        "textvqa",
        "TextVQA",
        _splits("textvqa", "val", "test", tasks=("text_vqa",)),
        ("val",),
        _SHORT,
        32,
        EVALAI_VQA,
        submissions.TEXT_VQA,
        _OCR,
    ),
    Task(
        "stvqa",
        "ST-VQA, task 3",
        _splits("stvqa", "test", "train", tasks=("text_vqa",)),
        ("test",),
        _SHORT,
        32,
        ANLS,
        submissions.TEXT_VQA,
        f"{_OCR} {_LEADERBOARD}",
    ),
    Task(
        "ocrvqa",
        "OCR-VQA",
        _splits("ocrvqa", "test", "val", tasks=("text_vqa",)),
        ("test",),
        _SHORT,
        32,
        EXACT_MATCH,
        note=_OCR,
    ),
    Task(
        "docvqa",
        "DocVQA",
        _splits("docvqa", "val", "test", tasks=("text_vqa",)),
        ("val",),
        _SHORT,
        32,
        ANLS,
        submissions.DOCVQA,
        f"{_OCR} {_LEADERBOARD}",
    ),
    *(
        Task(name, title, _splits(name, *splits, tasks=("locate",)), splits, _BOX, 64, BOX)
        for name, title, splits in (
            ("refcoco", "RefCOCO", ("val", "testA", "testB")),
            ("refcoco+", "RefCOCO+", ("val", "testA", "testB")),
            ("refcocog", "RefCOCOg (umd)", ("val", "test")),
        )
    ),
    Task(
        "pope",
        "POPE",
        _splits("pope", "random", "popular", "adversarial", tasks=("vqa",)),
        ("random", "popular", "adversarial"),
        _SHORT,
        128,
        POPE,
        submissions.POPE,
        "Everything that is not a no counts as yes, as in the official code.",
    ),
    Task(
        "mme",
        "MME",
        _splits("mme", "test", tasks=("vqa",)),
        ("test",),
        _SHORT,
        16,
        MME,
        submissions.MME,
        per_picture=True,
    ),
    Task(
        "llava_bench",
        "LLaVA-Bench (In-the-Wild)",
        _splits("llava_bench", "test", tasks=("vqa",)),
        ("test",),
        AS_IT_IS,
        1024,
        JUDGED,
        submissions.LLAVA_BENCH,
        "Another model judges the answers; the number means nothing without its name.",
        is_judged=True,
    ),
    Task(
        "custom",
        "Your own questions",
        _splits("custom", "all", tasks=("vqa", "choice", "locate")),
        ("all",),
        AS_IT_IS,
        64,
        METRICS["exact_match"],
    ),
)
TASKS: Mapping[str, Task] = {one.name: one for one in _ALL}
