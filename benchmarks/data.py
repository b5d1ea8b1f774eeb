"""Readers of data sets and the filter of image-text pairs: rows a second, pairs a second, and memory.

Reading: a synthetic VQAv2 of any size, its questions and annotations in different orders, is read and joined through
the index on disk. Memory is the peak of what the process adds of its own to what it had after importing. Beside it, the
`datasets` library reads the same questions and answers from JSON Lines, already joined, and joins nothing.
Filtering: tar shards of drawn pictures as JPEG of a given size, one process.

    python benchmarks/data.py read --rows 1000000      # 0.6 GB on disk
    python benchmarks/data.py filter --pairs 5000 --side 480
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

PICTURES = 1000  # of a synthetic data set
QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"


def write_vqa(root: Path, rows: int, with_joined: bool = True) -> None:
    """Write questions in order, annotations in another order, and the same joined as lines."""
    folder = root / "train2014"
    folder.mkdir()
    Image.new("RGB", (32, 32)).save(folder / f"COCO_train2014_{0:012d}.jpg")
    for number in range(1, PICTURES):
        os.link(folder / f"COCO_train2014_{0:012d}.jpg", folder / f"COCO_train2014_{number:012d}.jpg")
    with open(root / QUESTIONS, "w") as file:
        file.write('{"info": {"year": 2017}, "questions": [')
        for key in range(rows):
            file.write("," * (key > 0) + json.dumps(question(key)))
        file.write("]}")
    with open(root / ANNOTATIONS, "w") as file, open(root / "joined.jsonl", "w") as joined:
        file.write('{"annotations": [')
        for place in range(rows):
            key = (place * 7919 + 13) % rows  # 7919 is prime: every key once where it does not divide the rows
            file.write("," * (place > 0) + json.dumps(annotation(key)))
            if with_joined:
                joined.write(json.dumps({**question(place), "answers": answers(place)}) + "\n")
        file.write("]}")


def question(key: int) -> dict[str, object]:
    """Return the question of a key."""
    return {"image_id": key % PICTURES, "question": f"What is number {key} made of?", "question_id": key}


def answers(key: int) -> list[str]:
    """Return ten answers of a key."""
    return [f"wood {key % 97}" if place % 3 else "metal" for place in range(10)]


def annotation(key: int) -> dict[str, object]:
    """Return the annotation of a key, with the fields of VQAv2."""
    given = [{"answer": one, "answer_confidence": "yes", "answer_id": place} for place, one in enumerate(answers(key))]
    fields = {"question_type": "what is", "answer_type": "other", "multiple_choice_answer": "metal"}
    return {**fields, "image_id": key % PICTURES, "question_id": key, "answers": given}


def own_memory() -> int:
    """Return the bytes of memory that the process has of its own: resident, without mapped files."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, rows: Iterator[object]) -> float:
    """Iterate over rows; print their rate and the peak of memory above the start, and return the rate."""
    before, peak, count, start = own_memory(), 0, 0, time.process_time()
    for _ in rows:
        count += 1
        if count % 2000 == 0:
            peak = max(peak, own_memory())
    seconds = time.process_time() - start
    added = max(0, max(peak, own_memory()) - before) / 1e6
    print(f"{name}: {count:,} rows, {count / seconds:,.0f} a second of one core, {added:,.0f} MB above the start")
    return count / seconds


def read(arguments: argparse.Namespace) -> None:
    """Read a synthetic VQAv2 with the catalog, and joined lines with `datasets`."""
    import datasets

    from lyrics.datasets_lyrics.catalog.registry import open_reader
    from lyrics.datasets_lyrics.catalog.row_store import store_rows
    from lyrics.datasets_lyrics.catalog.rows import canonical_rows

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_vqa(root, arguments.rows, not arguments.join_only)
        rates = {"read and join": measure("read and join", iter(open_reader("vqav2", root)))}
        if arguments.join_only:
            return
        rates["with messages"] = measure("with messages", canonical_rows(open_reader("vqav2", root)))
        stored = store_rows(open_reader("vqav2", root), root / "cache")
        rates["from the cache"] = measure("from the cache", iter(stored))
        stream = datasets.load_dataset("json", data_files=str(root / "joined.jsonl"), split="train", streaming=True)
        alone = measure("`datasets`, joined lines, streaming", iter(stream))
        for name, rate in rates.items():
            print(f"{name}: {rate / alone:.2f} of the rate of `datasets`")


def filter_shards(arguments: argparse.Namespace) -> None:
    """Filter drawn pairs with one process."""
    from lyrics.datasets_lyrics.pair_filter.rules import FilterRules
    from lyrics.datasets_lyrics.pair_filter.run import filter_pairs
    from lyrics.datasets_lyrics.toy_data import ShapeRows

    pictures = []
    for number in range(50):
        file = io.BytesIO()
        picture = ShapeRows(50)[number]["image"].resize((arguments.side, arguments.side * 3 // 4))
        Image.blend(picture, Image.effect_noise(picture.size, 60).convert("RGB"), 0.3).save(file, "JPEG", quality=85)
        pictures.append(file.getvalue())
    with tempfile.TemporaryDirectory() as name:
        with tarfile.open(Path(name) / "a.tar", "w") as tar:
            for number in range(arguments.pairs):
                text = f"a picture of shapes on the table, number {number}".encode()
                for ending, content in (("jpg", pictures[number % 50]), ("txt", text)):
                    member = tarfile.TarInfo(f"{number:08d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        rules = FilterRules(languages=("en",))
        start = time.process_time()
        report = filter_pairs(str(Path(name) / "a.tar"), Path(name) / "out", rules)
        seconds = time.process_time() - start
    size = sum(map(len, pictures)) / len(pictures)
    print(report.describe())
    print(f"{report.pairs / seconds:,.0f} pairs a second of one core, {size:,.0f} bytes a picture")


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    reading = commands.add_parser("read")
    reading.add_argument("--rows", type=int, default=1_000_000)
    reading.add_argument("--join-only", action="store_true")
    reading.set_defaults(run=read)
    filtering = commands.add_parser("filter")
    filtering.add_argument("--pairs", type=int, default=5000)
    filtering.add_argument("--side", type=int, default=480)
    filtering.set_defaults(run=filter_shards)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
