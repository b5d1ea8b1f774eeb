"""Data that only evaluation uses: POPE, MME, LLaVA-Bench."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .folder import COCO_STARTS, Folder, Split
from .formats import Format, Record, Row, field_of, text_of
from .json_stream import stream_lines
from .omissions import OmittedError
from .referring import line_records

MME_SUBTASKS = {
    "perception": (
        *("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"),
    ),
    "cognition": ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
}
_PICTURES = (".jpg", ".png", ".jpeg")

# ---------------------------------------------------------------- POPE


def _pope_rows(folder: Folder, record: dict[str, Any]) -> Iterable[Row]:
    key, image, label = field_of(record, "question_id"), text_of(record, "image"), text_of(record, "label")
    if label not in ("yes", "no"):
        raise OmittedError("malformed record", f"'label' is {label!r:.40}, and neither yes nor no")
    starts = tuple(f"{start}{part}" for start in COCO_STARTS for part in ("val2014/", ""))
    yield Row(str(key), [folder.picture(image, starts)], "vqa", text_of(record, "text"), [label])


# ---------------------------------------------------------------- MME


def mme_records(folder: Folder) -> Iterator[Record]:
    """Yield the questions of MME, from the files of its evaluation tool or from the release.

    The tool has one file a subtask, with image, question and answer in each line. The release has one file an image,
    with question and answer in each line.
    """
    found = 0
    for part in (one for parts in MME_SUBTASKS.values() for one in parts):
        for path, image, lines in _mme_files(folder.root, part):
            found += 1
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    fields = [image, *line.split("\t")] if image else line.split("\t")
                    yield f"{path.relative_to(folder.root)}, line {number}", (part, fields)
    if not found:
        wanted = "existence.txt or existence/"
        raise FileNotFoundError(f"There is no subtask of MME (such as {wanted}) in {folder.root} or its folders.")


def _mme_files(root: Path, part: str) -> Iterator[tuple[Path, str, list[str]]]:
    """Yield the files of a subtask, the image's name where the file has that of an image, and the lines."""
    tool = sorted(root.glob(f"**/{part}.txt"))
    if tool:
        yield tool[0], "", tool[0].read_text(encoding="utf-8", errors="replace").splitlines()
        return
    for folder in sorted(path for path in root.glob(f"**/{part}") if path.is_dir())[:1]:
        for path in sorted(folder.rglob("*.txt")):
            yield path, path.stem, path.read_text(encoding="utf-8", errors="replace").splitlines()


def _mme_rows(folder: Folder, record: tuple[str, list[str]]) -> Iterable[Row]:
    part, fields = record
    if len(fields) < 3:
        raise OmittedError("malformed record", f"{fields!r:.80} is not image, question and answer")
    image, question, answer = (one.strip() for one in fields[:3])
    if answer.lower() not in ("yes", "no"):
        raise OmittedError("malformed record", f"the answer is {answer!r:.40}, and neither yes nor no")
    names = [image] if image.endswith(_PICTURES) else [f"{image}{ending}" for ending in _PICTURES]
    inner = (f"{part}/", f"{part}/images/", f"images/{part}/")
    starts = tuple(f"{outer}{one}" for outer in ("", "MME_Benchmark_release_version/") for one in inner)
    kind = next(kind for kind, parts in MME_SUBTASKS.items() if part in parts)
    key = f"{part}/{image}/{question}"
    groups = {"subtask": part, "kind": kind}
    yield Row(key, [folder.picture(names, starts)], "vqa", question, [answer], groups=groups)


# ---------------------------------------------------------------- LLaVA-Bench


def llava_bench_records(folder: Folder) -> Iterator[Record]:
    """Yield the questions with the reference answer, joined by question id."""
    questions = folder.file(0)
    references = {one.get("question_id"): one for _, one in stream_lines(folder.file(1)) if isinstance(one, dict)}
    for number, entry in stream_lines(questions):
        key = entry.get("question_id") if isinstance(entry, dict) else None
        yield f"{questions.name}, line {number}", (entry, references.get(key))


def _llava_bench_rows(folder: Folder, record: tuple[dict[str, Any], dict[str, Any] | None]) -> Iterable[Row]:
    entry, reference = record
    key, question = field_of(entry, "question_id"), text_of(entry, "text")
    if reference is None:
        raise OmittedError("question without a reference", f"question {key} has no answer in {folder.split.files[1]}")
    picture = folder.picture(text_of(entry, "image"), ("images/", ""))
    groups = {"category": text_of(entry, "category")}
    yield Row(str(key), [picture], "vqa", question, [text_of(reference, "text")], groups=groups)


_POPE = ("random", "popular", "adversarial")

FORMATS = (
    Format(
        "pope",
        "POPE",
        "benchmarks",
        "MIT; images: COCO's",
        "github.com/RUCAIBox/POPE: output/coco/coco_pope_*.json; COCO val2014",
        "val2014/COCO_val2014_*.jpg; also below images/ or coco/",
        {name: Split((f"coco_pope_{name}.json",), 3_000) for name in _POPE},
        line_records,
        _pope_rows,
        source="coco",
    ),
    Format(
        "mme",
        "MME",
        "benchmarks",
        "for research, as its authors say",
        "MME_Benchmark_release_version.zip of its authors, or the files of eval_tool with the images",
        "<subtask>/*.jpg or <subtask>/images/*.jpg",
        {"test": Split(("*.txt",), 2_374)},
        mme_records,
        _mme_rows,
        source="mme",
    ),
    Format(
        "llava_bench",
        "LLaVA-Bench (In-the-Wild)",
        "benchmarks",
        "Apache-2.0; images: their owners'",
        "liuhaotian/llava-bench-in-the-wild: questions.jsonl, context.jsonl, answers_gpt4.jsonl, images/",
        "images/*.jpg",
        {"test": Split(("questions.jsonl", "answers_gpt4.jsonl"), 60)},
        llava_bench_records,
        _llava_bench_rows,
        source="llava_bench",
    ),
)
