"""A store of refined images: reading it, filling it, and what a training step saves by it.

Reading: synthetic rows in the size of the paper's (16 objects of 260 numbers), written as `refine_dataset` writes them;
random rows by key and by image hash from one process, checksums included, beside the same rows through `datasets`
and from the store's own export to Parquet. Memory is what the process adds of its own (not what is mapped).
Filling: images a second of the micro refiner, as the slope between a short and a long run, so that starting up does
not count; with one and two processes and with Ray. Step: the first stage at the paper's size on a batch whose objects
are looked up, and whose objects a refiner of full size (Swin-L RAM, Grounding DINO-T, SAM ViT-H, random weights) finds
on line, with the arithmetic operations of both as torch counts them.

    python benchmarks/store.py read --rows 1000000 --objects 1 --width 8     # a million small rows, 0.4 GB
    python benchmarks/store.py read --rows 100000                            # of the paper's size, 0.9 GB
    python benchmarks/store.py read --rows 1000000 --alone                   # 9 GB
    python benchmarks/store.py fill
    python benchmarks/store.py step                                          # some minutes, 10 GB of memory
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stage1 import SIZES, build_lyrics, build_rows, build_tokenizer, measure, name_machine
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, GroundingDinoConfig, SamConfig
from transformers.utils import logging

from lyrics.assets import draw_table, write_random_checkpoint
from lyrics.assets.random_model import build_bert_tokenizer
from lyrics.modeling_lyrics import LyricsRefinerConfig, LyricsVisualRefiner, RamConfig
from lyrics.processing_lyrics import LyricsImageProcessor, LyricsProcessor, VisualObjects
from lyrics.refinement import RefinementStore, RefinerIdentity, refine_dataset
from lyrics.refinement.storage.finalize import finish_store
from lyrics.refinement.storage.manifest import SHARDS, Manifest
from lyrics.refinement.storage.rows import Row, RowFormat, prepare_objects
from lyrics.refinement.storage.shards import shard_name, write_shard
from lyrics.trainers import LyricsPretrainingCollator

SHARD_SIZE = 10_000
READS = 20_000
LABELS = [f"label {number}" for number in range(4585)]
CPU = torch.device("cpu")


# ------------------------------------------------------------------------------------------------------------- reading


def synthetic_rows(count: int, objects: int, row_format: RowFormat) -> Iterator[Row]:
    """Rows with objects of noise; the noise of a hundred images is used again and again."""
    noise = np.random.default_rng(0)
    seen = []
    for _ in range(100):
        boxes = np.sort(noise.random((objects, 2, 2), np.float32), axis=1).reshape(objects, 4)
        scores = noise.random(objects, np.float32)
        features = noise.standard_normal((objects, row_format.region_feature_size), np.float32)
        labels = [LABELS[number] for number in noise.integers(0, len(LABELS), objects)]
        seen.append(prepare_objects(VisualObjects(labels, boxes, scores, features, tags=labels[:8]), row_format))
    for number in range(count):
        yield Row(f"images/{number:09d}.jpg", noise.bytes(32), noise.bytes(32), 640, 480, seen[number % 100])


def write_store(folder: Path, count: int, objects: int, width: int) -> None:
    """A store of synthetic rows, through the writer's own parts."""
    identity = RefinerIdentity("0" * 64, None, {})
    row_format = RowFormat(identity.fingerprint, "mask", width)
    shards = -(-count // SHARD_SIZE)
    manifest = Manifest(identity, row_format, {"kind": "synthetic"}, {"shards": shards, "shard_size": SHARD_SIZE})
    (folder / SHARDS).mkdir(parents=True)
    rows = synthetic_rows(count, objects, row_format)
    for number in logging.tqdm(range(shards), desc="Writing"):
        with write_shard(folder / SHARDS / shard_name(number), row_format) as shard:
            for row in (next(rows) for _ in range(min(SHARD_SIZE, count - number * SHARD_SIZE))):
                shard.append(row)
        shard.receipt([]).save(folder / SHARDS)
    finish_store(folder, manifest)


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not say how much memory is anonymous")


def reads_per_second(read: Callable[[Any], Any], keys: list[Any], warm: bool = True) -> float:
    """Of random rows; once before, to warm up the page cache and what is opened on demand."""
    if warm:
        for key in keys:
            read(key)
    start = time.perf_counter()
    for key in keys:
        read(key)
    return len(keys) / (time.perf_counter() - start)


def read(arguments: argparse.Namespace) -> None:
    """Print what reading costs."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        folder = Path(place) / "store"
        start = time.perf_counter()
        write_store(folder, arguments.rows, arguments.objects, arguments.width)
        writing = time.perf_counter() - start
        start, before = time.perf_counter(), anonymous_bytes()
        store = RefinementStore.open(folder)
        opening = time.perf_counter() - start
        chosen = np.random.default_rng(0).permutation(arguments.rows)[:READS].tolist()
        keys = [f"images/{number:09d}.jpg" for number in chosen]
        by_key = reads_per_second(lambda key: store[key], keys)
        memory = anonymous_bytes() - before
        hashes = [store.row(key).image_hash for key in keys]  # pyright: ignore[reportOptionalMemberAccess]
        by_hash = reads_per_second(store.find_image, hashes)
        start = time.perf_counter()
        store.verify()
        verifying = time.perf_counter() - start
        print(f"{arguments.rows:,} images of {arguments.objects} objects x {arguments.width}; {name_machine(CPU)}\n")
        print(f"| | |\n|---|---|\n| bytes per image, indices included | {store.bytes / len(store):,.0f} |")
        print(f"| written, indices included | {len(store) / writing:,.0f} rows/s |")
        print(f"| opened | {1000 * opening:.0f} ms |")
        print(f"| anonymous memory after {2 * len(keys):,} reads | {memory / 1e6:,.0f} MB |")
        print(f"| verified | {store.bytes / verifying / 1e6:,.0f} MB/s |\n")
        print("| random reads, one process, warm | rows/s | ratio |\n|---|---|---|")
        print(
            f"| store, by key | {by_key:,.0f} | 1.00 |\n| store, by image hash | {by_hash:,.0f} | "
            f"{by_hash / by_key:.2f} |"
        )
        if arguments.alone:
            return
        for name, rate in read_by_others(store, folder, Path(place), chosen[:2000]):
            print(f"| {name} | {rate:,.0f} | {rate / by_key:.3f} |")


def read_by_others(store: RefinementStore, folder: Path, place: Path, chosen: list[int]) -> Iterator[tuple[str, float]]:
    """The same rows by number, which takes no index: through `datasets`, and from Parquet by row group."""
    import pyarrow.parquet as pq
    from datasets import load_dataset

    files = str(folder / SHARDS / "*.arrow")
    table: Any = load_dataset("arrow", data_files=files, split="train", cache_dir=str(place / "cache"))
    table = table.with_format("numpy")
    yield "`datasets`, by row number", reads_per_second(lambda number: table[number], chosen)
    store.export(place / "parquet")
    parquet = [pq.ParquetFile(file) for file in sorted((place / "parquet").glob("*.parquet"))]

    def read_parquet(number: int) -> Any:
        file, row = parquet[number // SHARD_SIZE], number % SHARD_SIZE
        size = file.metadata.row_group(0).num_rows
        return file.read_row_group(row // size).slice(row % size, 1).to_pylist()

    yield "Parquet, by row number, its row group", reads_per_second(read_parquet, chosen[:20])


# ------------------------------------------------------------------------------------------------------------- filling


def fill(arguments: argparse.Namespace) -> None:
    """Print images a second of each engine."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        photos, counts = (
            Path(place) / "photos",
            (16, arguments.pictures // 4, arguments.pictures),
        )  # the first one starts what is started once
        photos.mkdir()
        for number in range(counts[-1]):
            draw_table(320 + number % 5, 240).save(photos / f"{number:05d}.png")
        write_random_checkpoint(Path(place) / "micro")
        engines = {
            "local, 1 process": {"workers": 1},
            "local, 2 processes": {"workers": 2},
            "Ray Data, 2 actors": {"workers": 2, "engine": "ray"},
        }
        rates = {}
        for name, options in engines.items():
            seconds = []
            for count in counts:
                processor = LyricsProcessor.from_pretrained(Path(place) / "micro")
                out = Path(place) / f"{name} {count}"
                start = time.perf_counter()
                refine_dataset(photos, out, processor, shard_size=8, limit=count, **options)
                seconds.append(time.perf_counter() - start)
            rates[name] = (counts[2] - counts[1]) / (seconds[2] - seconds[1])
        base = rates["local, 1 process"]
        print(f"{counts[-1]} images, micro refiner; {os.cpu_count()} cores, {name_machine(CPU)} each\n")
        print("| engine | images/s | ratio |\n|---|---|---|")
        for name, rate in rates.items():
            print(f"| {name} | {rate:.2f} | {rate / base:.2f} |")


# --------------------------------------------------------------------------------------------------------------- steps


def full_size_refiner() -> LyricsVisualRefiner:
    """RAM on Swin-L, Grounding DINO-T and SAM ViT-H with random weights; twenty tags fire."""
    tagger = RamConfig(id2label=dict(enumerate(LABELS)), label2id={name: number for number, name in enumerate(LABELS)})
    tagger.threshold = [0.0 if number % 230 == 0 else 1.0 for number in range(len(LABELS))]
    detector = GroundingDinoConfig(text_config=BertConfig().to_dict())
    huge = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "num_pos_feats": 128}
    segmenter = SamConfig(vision_config={**huge, "mlp_dim": 5120, "global_attn_indexes": [7, 15, 23, 31]})
    parts = {"tagger_config": tagger, "detector_config": detector, "segmenter_config": segmenter}
    config = LyricsRefinerConfig(**{name: part.to_dict() for name, part in parts.items()}, max_regions=16)
    refiner = LyricsVisualRefiner(config)
    refiner.tokenizer = build_bert_tokenizer()
    return refiner


def count_flop(run: Callable[[], Any]) -> float:
    """Arithmetic operations of what torch knows: products of matrices, convolutions, attention."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def step(arguments: argparse.Namespace) -> None:
    """Print a training step with stored objects and with a refiner."""
    torch.manual_seed(0)
    size = SIZES["paper"]
    rows = build_rows(arguments.rows, size["vision"][3])
    side = {"height": size["vision"][3], "width": size["vision"][3]}
    tokenizer = build_tokenizer()
    processor = LyricsProcessor(LyricsImageProcessor(size=side), build_tokenizer(), tokenizer)
    collator = LyricsPretrainingCollator(processor)
    model = build_lyrics(size, len(tokenizer))
    refiner = full_size_refiner()
    pictures = [draw_table(640, 480) for _ in rows]

    def train() -> None:
        batch = collator(rows)
        del batch["samples"]
        model(**batch).loss.backward()

    def refine() -> None:
        refiner.refine(pictures, batch_size=len(pictures), progress=False)

    def train_on_line() -> None:
        refine()
        train()

    seconds = measure({"stored": train, "on line": train_on_line}, arguments.repeats, CPU)
    flop = {"stored": count_flop(train) / len(rows), "refiner": count_flop(refine) / len(rows)}
    flop["on line"] = flop["stored"] + flop["refiner"]
    millions = sum(parameter.numel() for parameter in refiner.parameters()) / 1e6
    print(f"first stage, paper size, {len(rows)} rows; refiner of {millions:,.0f} M weights; {name_machine(CPU)}\n")
    print("| objects | s per image | TFLOP per image | time, ratio | FLOP, ratio |\n|---|---|---|---|---|")
    for name, value in seconds.items():
        ratios = value / seconds["stored"], flop[name] / flop["stored"]
        print(f"| {name} | {value / len(rows):.2f} | {flop[name] / 1e12:.2f} | {ratios[0]:.1f} | {ratios[1]:.1f} |")


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
    parts = parser.add_subparsers(dest="part", required=True)
    reading, filling, stepping = (parts.add_parser(name) for name in ("read", "fill", "step"))
    reading.add_argument("--rows", type=int, default=100_000)
    reading.add_argument("--objects", type=int, default=16)
    reading.add_argument("--width", type=int, default=260)
    reading.add_argument("--alone", action="store_true", help="without the peers, which take twice the disk")
    filling.add_argument("--pictures", type=int, default=1200)
    stepping.add_argument("--rows", type=int, default=2)
    stepping.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    {"read": read, "fill": fill, "step": step}[arguments.part](arguments)


if __name__ == "__main__":
    main()
