"""Loading, reading and filtering of data: images, rows and pairs a second, and memory.

Loading: batches of the first stage from JPEG files of 640 x 480 pixels whose objects are known, in worker processes,
beside BLIP-2's image processor and the same tokenizer on the same files: with rows as they are, with rows as the
trainers prepare them, and with a store that keeps resized pixels. A number is images for a second of processor time of
all processes, so that other programs change it little. They take turns.

Reading: a synthetic VQAv2 of any size, its questions and annotations in different orders, is read and joined through
the index on disk. Memory is the peak of what the process adds of its own to what it had after importing. Beside it, the
`datasets` library reads the same questions and answers from JSON Lines, already joined, and joins nothing.
Filtering: tar shards of drawn images as JPEG of a given size, one process.

    python benchmarks/data.py load
    python benchmarks/data.py read --rows 1000000      # 0.6 GB on disk
    python benchmarks/data.py filter --pairs 5000 --side 480
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from measuring import add_json_option, name_machine, report
from PIL import Image
from torch.utils.data import DataLoader
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from lyrics.assets.random_model import build_bert_tokenizer
from lyrics.processing_lyrics import LyricsImageProcessor, LyricsProcessor, VisualObjects
from lyrics.refinement import RefinementStore, RefinerIdentity
from lyrics.refinement.storage.finalize import finish_store
from lyrics.refinement.storage.manifest import SHARDS, Manifest
from lyrics.refinement.storage.picture_hash import read_picture
from lyrics.refinement.storage.pixels import PixelFormat
from lyrics.refinement.storage.rows import Row, RowFormat, prepare_objects
from lyrics.refinement.storage.shards import shard_name, write_shard
from lyrics.trainers import LyricsPretrainingCollator
from lyrics.trainers.data.datasets import MapRows

REGION_WIDTH = 260  # numbers of a region feature
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


# ------------------------------------------------------------------------------------------------------------- loading


def write_photos(folder: Path, count: int) -> list[dict[str, Any]]:
    """Write JPEG files of some 70 kB; return rows that name them, with captions and 16 objects."""
    from lyrics.datasets_lyrics.toy_data import ShapeRows

    noise, shapes, rows = np.random.default_rng(0), ShapeRows(count), []
    for number in range(count):
        picture = shapes[number]["image"].resize((640, 480))
        picture = Image.blend(picture, Image.effect_noise(picture.size, 60).convert("RGB"), 0.1)
        picture.save(folder / f"{number:05d}.jpg", quality=85)
        boxes = np.sort(noise.random((16, 2, 2), np.float32), axis=1).reshape(16, 4)
        features = noise.standard_normal((16, REGION_WIDTH), np.float32)
        objects = VisualObjects([f"ball {one}" for one in range(16)], boxes, noise.random(16, np.float32), features)
        caption = f"Image {number} of colored shapes that lie on a table beside each other."
        rows.append({"image": str(folder / f"{number:05d}.jpg"), "caption": caption, "visual_objects": objects})
    return rows


def write_pixel_store(folder: Path, rows: list[dict[str, Any]], image_processor: Any) -> RefinementStore:
    """Write the store that `lyrics refine-dataset --keep-pixels` would, without a refiner."""
    identity = RefinerIdentity("0" * 64, None, {})
    pixels = PixelFormat.of(image_processor)
    row_format = RowFormat(identity.fingerprint, "mask", REGION_WIDTH, pixels=pixels)
    manifest = Manifest(identity, row_format, {"kind": "synthetic"}, {"shards": 1, "shard_size": len(rows)})
    (folder / SHARDS).mkdir(parents=True)
    with write_shard(folder / SHARDS / shard_name(0), row_format) as shard:
        for row in rows:
            seen = read_picture(Path(row["image"]), 10**8)
            objects = prepare_objects(row["visual_objects"], row_format)
            kept = image_processor.resize_only(seen.picture)
            shard.append(Row(row["image"], seen.image_hash, seen.file_sha256, *seen.picture.size, objects, kept))
    shard.receipt([]).save(folder / SHARDS)
    finish_store(folder, manifest)
    return RefinementStore.open(folder)


class BlipCollator:
    """What BLIP-2 reads: resized images, and captions as tokens."""

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch: `pixel_values`, `input_ids` and `attention_mask`."""
        pictures = [Image.open(row["image"]).convert("RGB") for row in rows]
        text = self.tokenizer([row["caption"] for row in rows], padding=True, truncation=True, return_tensors="pt")
        return {**self.image_processor(pictures, return_tensors="pt"), **text}


def load(arguments: argparse.Namespace) -> None:
    """Load batches of the first stage, and BLIP-2's."""
    size = {"height": 224, "width": 224}
    with tempfile.TemporaryDirectory() as name:
        rows = write_photos(Path(name), arguments.images)
        image_processor = LyricsImageProcessor(size=size)
        store = write_pixel_store(Path(name) / "store", rows, image_processor)
        collators = []
        for kept in (None, store):
            processor = LyricsProcessor(image_processor, build_bert_tokenizer(), build_bert_tokenizer())
            processor.region_feature_size = REGION_WIDTH
            processor.store = kept
            collators.append(LyricsPretrainingCollator(processor))
        plain, storing = collators
        without = [{name: row[name] for name in ("image", "caption")} for row in rows]
        peer = BlipCollator(BlipImageProcessorPil(size=size), build_bert_tokenizer())
        sources: dict[str, tuple[Any, Any]] = {
            "BLIP-2": (rows, peer),
            "rows as they are": (rows, plain),
            "rows that the trainer prepares": (MapRows(rows, plain.prepare), plain),
            "a store that keeps pixels": (MapRows(without, storing.prepare), storing),
        }
        steps = {
            name: partial(load_all, source, collate, arguments.workers) for name, (source, collate) in sources.items()
        }
        seconds: dict[str, list[float]] = defaultdict(list)
        for repeat in range(arguments.repeats + 1):
            for kind, step in steps.items():
                taken = step()
                if repeat:
                    seconds[kind].append(taken)
        bytes_kept = store.stats().bytes_per_picture
    rates = {kind: arguments.images / statistics.median(taken) for kind, taken in seconds.items()}
    spreads = {kind: (max(taken) - min(taken)) / statistics.median(taken) for kind, taken in seconds.items()}
    lines = [
        measuring.Row(
            f"first-stage loader, {kind}",
            rates[kind],
            rates["BLIP-2"],
            "images/s of a core",
            goal,
            max(spreads[kind], spreads["BLIP-2"]),
            more_is_better=True,
        )
        for kind, goal in zip(list(sources)[1:], (1.0, 1.0, 2.0), strict=True)
    ]
    lines.append(
        measuring.Row("the same, images of a worker", rates["rows that the trainer prepares"], None, "/s", ">= 125")
    )
    lines.append(measuring.Row("an image in a store that keeps pixels", bytes_kept, None, "bytes"))
    title = f"Loading of the first stage: {arguments.images} JPEG files of 640 x 480, {arguments.workers} workers"
    report(title, name_machine(torch.device("cpu")), lines, arguments.json)


def load_all(source: Any, collate: Any, workers: int) -> float:
    """Return the processor time of all processes for one pass over the rows."""
    loader = DataLoader(source, batch_size=32, num_workers=workers, collate_fn=collate)
    before = sum(os.times()[:4])
    for _ in loader:
        pass
    return sum(os.times()[:4]) - before


# ----------------------------------------------------------------------------------------------------------- filtering


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
                text = f"an image of shapes on the table, number {number}".encode()
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
    print(f"{report.pairs / seconds:,.0f} pairs a second of one core, {size:,.0f} bytes an image")


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    reading = commands.add_parser("read")
    reading.add_argument("--rows", type=int, default=1_000_000)
    reading.add_argument("--join-only", action="store_true")
    reading.set_defaults(run=read)
    loading = commands.add_parser("load")
    loading.add_argument("--images", type=int, default=192)
    loading.add_argument("--workers", type=int, default=2)
    loading.add_argument("--repeats", type=int, default=5)
    add_json_option(loading)
    loading.set_defaults(run=load)
    filtering = commands.add_parser("filter")
    filtering.add_argument("--pairs", type=int, default=5000)
    filtering.add_argument("--side", type=int, default=480)
    filtering.set_defaults(run=filter_shards)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
