"""`lyrics refine-dataset`: the objects of many images, computed once and kept in a store."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import add_command, add_model_arguments, load_processor, on_one_line, positive_int, share

if TYPE_CHECKING:
    from lyrics.refinement import Estimate

EXAMPLES = """examples:
  lyrics refine-dataset photos --out seen          # with the micro model, which ships with the package
  lyrics refine-dataset photos --out seen --model DIR
  lyrics refine-dataset captions.jsonl --image-column file --out seen --model DIR --dry-run
  lyrics refine-dataset 'shards/{00000..01242}.tar' --out seen --model DIR --dtype bfloat16 --engine ray
  lyrics refine-dataset mixture:stage2 --root data --out seen --model DIR
  lyrics refine-dataset OWNER/NAME --split train --streaming --out seen --model DIR

The same command goes on where it was interrupted. `processor.store = RefinementStore.open("seen")` uses what it wrote;
`lyrics store` checks it, counts it, and joins several.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = (
        "Refine every image of a data set, and keep labels, boxes, scores and region features in a store that training "
        "reads."
    )
    parser = add_command(commands, "refine-dataset", "find the objects of many images, once", description, EXAMPLES)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder of images; a JSONL or Parquet file that names or holds them; tar shards (braces and "
        "wildcards in quotes); a folder of save_to_disk; NAME:DIR of `lyrics data list`; a mixture (mixture:NAME or a "
        ".yaml file); or a data set's Hub id",
    )
    parser.add_argument("--out", metavar="STORE", type=Path, required=True, help="folder of the store")
    parser.add_argument("--batch-size", metavar="N", type=positive_int, default=8, help="images at a time (default: 8)")
    parser.add_argument(
        "--shard-size", metavar="N", type=positive_int, default=1000, help="images a file (default: 1000)"
    )
    parser.add_argument(
        "--workers", metavar="N", type=positive_int, help="refiners at a time (default: one a GPU, or 1)"
    )
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="where to run (default: local)")
    parser.add_argument("--limit", metavar="N", type=positive_int, help="the first N images only")
    parser.add_argument("--masks", action="store_true", help="keep the objects' masks too")
    parser.add_argument(
        "--keep-pixels",
        action="store_true",
        help="keep resized pixels too, so that training decodes no files (150 kB an image of 224 x 224)",
    )
    parser.add_argument(
        "--max-failure-rate",
        metavar="R",
        type=share,
        default=0.05,
        help="largest share of failures (default: 0.05)",
    )
    parser.add_argument("--retry-failures", action="store_true", help="refine shards with failed images again")
    parser.add_argument("--dry-run", action="store_true", help="count the images, and estimate time and bytes")
    add_source_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that only some sources need."""
    group = parser.add_argument_group("options of the source")
    group.add_argument("--image-column", metavar="NAME", help="column with the images; extension in tar shards")
    group.add_argument("--key-column", metavar="NAME", help="column with unique names (default: path, or row number)")
    group.add_argument(
        "--root", metavar="DIR", help="folder that paths are relative to and never leave (default: that of the data)"
    )
    group.add_argument("--split", default="train", help="split of a data set (default: train)")
    group.add_argument("--config-name", metavar="NAME", help="configuration of a data set on the Hub")
    group.add_argument("--revision", help="revision of a data set on the Hub")
    group.add_argument("--streaming", action="store_true", help="read the data set as a stream")
    group.add_argument("--fetch-urls", action="store_true", help="fetch the URLs of images that rows name")


def run(arguments: argparse.Namespace) -> int:
    """Refine, or say what it would take."""
    from lyrics.refinement import estimate, open_source, refine_dataset

    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out} is a file, and not the folder of a store.")
    if arguments.model is not None and os.path.isdir(arguments.model):
        arguments.model = os.path.abspath(arguments.model)  # workers may be in another folder
    processor = load_processor(arguments)
    source = open_source(
        arguments.source,
        shard_size=arguments.shard_size,
        limit=arguments.limit,
        image=arguments.image_column,
        key=arguments.key_column,
        root=arguments.root,
        split=arguments.split,
        name=arguments.config_name,
        revision=arguments.revision,
        streaming=arguments.streaming,
        fetch_urls=arguments.fetch_urls,
    )
    devices = choose_devices(arguments.device)
    workers = arguments.workers or max(1, len(devices))
    if arguments.dry_run:
        found = estimate(source, processor, arguments.batch_size, arguments.masks, arguments.keep_pixels)
        print(json.dumps(asdict(found)) if arguments.json else describe_estimate(found, workers))
        return 0
    store = refine_dataset(
        source,
        arguments.out,
        processor,
        batch_size=arguments.batch_size,
        shard_size=arguments.shard_size,
        workers=arguments.workers,
        engine=arguments.engine,
        devices=devices,
        masks=arguments.masks,
        keep_pixels=arguments.keep_pixels,
        max_failure_rate=arguments.max_failure_rate,
        retry_failures=arguments.retry_failures,
    )
    failures = store.manifest.failure_count
    if arguments.json:
        print(json.dumps({"store": str(store.path), "pictures": len(store), "failures": failures}))
    else:
        size = store.bytes / max(1, len(store))
        print(on_one_line(f"{store.path}: {len(store):,} images, {size:,.0f} bytes each"))
        if failures:
            print(f"not refined: {failures:,}, see {store.path / 'failures.jsonl'}; --retry-failures tries them again")
    return 0


def choose_devices(name: str | None) -> Sequence[str]:
    """Return every GPU, unless a device was named."""
    import torch

    if name not in (None, "cuda"):
        return []
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def describe_estimate(found: Estimate, workers: int) -> str:
    """Return an estimate as lines of text."""
    pictures = "an unknown number of" if found.pictures is None else f"{found.pictures:,}"
    lines = [
        f"Images: {pictures}, in {found.shards:,} shard{'s' * (found.shards != 1)}",
        f"Measured: {found.sampled} images, {found.seconds_per_picture:.3f} s and "
        f"{found.bytes_per_picture:,.0f} bytes each; {found.failed} of them failed",
    ]
    if (seconds := found.seconds(workers)) is not None and found.bytes is not None:
        time = timedelta(seconds=round(seconds))
        lines.append(f"Estimated: {time} with {workers} worker{'s' * (workers > 1)}, {found.bytes / 1e6:,.1f} MB")
    return "\n".join(lines)
