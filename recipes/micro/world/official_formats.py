"""The micro world in the forms of the field's benchmarks: VQAv2, RefCOCO, POPE and COCO captions.

`lyrics evaluate` reads them as it reads the real ones, so that a newcomer can try it without a download.

    python -m lyrics.recipes.micro.world.official_formats --out runs/evaluate/data
    lyrics evaluate vqav2 refcoco pope coco_caption/val2014 --data runs/evaluate/data --out runs/evaluate
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....utils.atomic_files import write_folder
from .cases import Case, draw_cases
from .objects import Scene
from .questions import caption
from .scenes import draw_test_scene

SHORT_ANSWERS = ("existence", "count", "color", "shape", "size", "relation", "reading")
PEOPLE = 10  # answers to a question of VQAv2
CAPTIONS = 5  # of a picture
_ANSWER_TYPES = {"yes": "yes/no", "no": "yes/no"}
_POPE = ("random", "popular", "adversarial")


def write_benchmarks(out: str | os.PathLike[str], per_kind: int = 50, first: int = 0) -> None:
    """Write test scenes and questions about them as four data sets: `vqav2`, `refcoco`, `pope`, `coco_captions`.

    Args:
        out: new folder, which holds one folder for each data set.
        per_kind: number of questions of each kind.
        first: number of the first scene.

    Raises:
        FileExistsError: `out` holds something.
    """
    with write_folder(out) as folder:
        write_vqav2(folder / "vqav2", draw_cases(per_kind, kinds=SHORT_ANSWERS, first=first))
        write_refcoco(folder / "refcoco", draw_cases(per_kind, kinds=("referring",), first=first))
        write_pope(folder / "pope", draw_cases(per_kind * len(_POPE), kinds=("existence",), first=first))
        write_captions(folder / "coco_captions", range(first, first + per_kind))


def write_vqav2(folder: Path, cases: Sequence[Case]) -> None:
    """Write questions with short answers as VQAv2: ten people answer, and all agree."""
    questions, annotations = [], []
    _write_pictures(folder, "val2014", cases)
    for number, case in enumerate(cases):
        key = {"question_id": number, "image_id": case.number}
        questions.append({**key, "question": case.question.text})
        answer = case.question.answer
        answers = [{"answer_id": one, "answer": answer, "answer_confidence": "yes"} for one in range(1, PEOPLE + 1)]
        kind = _ANSWER_TYPES.get(answer, "number" if answer.isdecimal() else "other")
        types = {"question_type": case.question.kind, "answer_type": kind}
        annotations.append({**key, **types, "multiple_choice_answer": answer, "answers": answers})
    common = {"data_type": "mscoco", "data_subtype": "val2014", "info": {}, "license": {}}
    _dump(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {**common, "questions": questions})
    _dump(folder / "v2_mscoco_val2014_annotations.json", {**common, "annotations": annotations})


def write_refcoco(folder: Path, cases: Sequence[Case]) -> None:
    """Write questions for a box as RefCOCO: half of them in the split `val`, the others in `testA` and `testB`."""
    _write_pictures(folder, "train2014", cases)
    images: dict[int, dict[str, Any]] = {}
    annotations, refs = [], []
    for number, case in enumerate(cases):
        width, height = case.scene.size
        x1, y1, x2, y2 = case.question.box or (0.0, 0.0, 1.0, 1.0)
        box = [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]
        name = _picture_name(case.number, "train2014")
        images[case.number] = {"id": case.number, "file_name": name, "width": width, "height": height}
        annotations.append({"id": number, "image_id": case.number, "category_id": 1, "bbox": box, "iscrowd": 0})
        sentence = {"sent_id": number, "sent": case.question.answer, "raw": case.question.answer}
        split = ("val", "testA", "val", "testB")[number % 4]
        refs.append(
            {
                **{"ref_id": number, "ann_id": number, "category_id": 1, "image_id": case.number, "split": split},
                **{"file_name": name, "sent_ids": [number]},
                "sentences": [sentence | {"tokens": case.question.answer.split()}],
            }
        )
    categories = [{"id": 1, "name": "shape"}]
    instances = {"images": list(images.values()), "annotations": annotations, "categories": categories}
    _dump(folder / "refcoco" / "instances.json", instances)
    (folder / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))


def write_pope(folder: Path, cases: Sequence[Case]) -> None:
    """Write questions whether something is there as POPE: the three files take turns."""
    _write_pictures(folder, "val2014", cases)
    for place, setting in enumerate(_POPE):
        lines = [
            {
                "question_id": number,
                "image": _picture_name(case.number, "val2014"),
                "text": case.question.text,
                "label": case.question.answer,
            }
            for number, case in enumerate(cases[place :: len(_POPE)], start=1)
        ]
        content = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"coco_pope_{setting}.json").write_text(content, encoding="utf-8")


def write_captions(folder: Path, numbers: Iterable[int]) -> None:
    """Write scenes with five captions each as COCO captions."""
    scenes = {number: draw_test_scene(number) for number in numbers}
    _write_scenes(folder, "val2014", scenes)
    images, annotations = [], []
    for number, scene in scenes.items():
        random = np.random.default_rng((number, 6))
        images.append({"id": number, "file_name": _picture_name(number, "val2014")})
        annotations += [
            {"id": number * CAPTIONS + one, "image_id": number, "caption": caption(scene, random)}
            for one in range(CAPTIONS)
        ]
    _dump(folder / "annotations" / "captions_val2014.json", {"images": images, "annotations": annotations})


def _write_pictures(folder: Path, subset: str, cases: Sequence[Case]) -> None:
    _write_scenes(folder, subset, {case.number: case.scene for case in cases})


def _write_scenes(folder: Path, subset: str, scenes: dict[int, Scene]) -> None:
    (folder / subset).mkdir(parents=True)
    for number, scene in scenes.items():
        path = folder / subset / _picture_name(number, subset)
        scene.image.save(path, "JPEG", quality=95, subsampling=0)  # the model reads colors: none are halved


def _picture_name(number: int, subset: str) -> str:
    return f"COCO_{subset}_{number:012d}.jpg"


def _dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def main() -> None:
    """Write the data sets that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m lyrics.recipes.micro.world.official_formats", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", required=True, type=Path, help="new folder of the data sets")
    parser.add_argument("--per-kind", metavar="N", type=int, default=50, help="questions of each kind (default: 50)")
    parser.add_argument("--first", metavar="N", type=int, default=0, help="number of the first scene (default: 0)")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_benchmarks(arguments.out, arguments.per_kind, arguments.first)


if __name__ == "__main__":
    main()
