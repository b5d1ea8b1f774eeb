"""`lyrics store`: check, count, join and export what `lyrics refine-dataset` wrote."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import add_command, printable

if TYPE_CHECKING:
    from lyrics.refinement import StoreStats

EXAMPLES = """examples:
  lyrics store verify seen
  lyrics store stats seen --json
  lyrics store merge seen-a seen-b --out seen
  lyrics store export seen --out seen-parquet
"""


def add_parser(commands: Any) -> None:
    """Register the command and its actions."""
    help_text = "check, count, join or export stores of refined images"
    parser = add_command(commands, "store", help_text, "Work with stores that `lyrics refine-dataset` wrote.", EXAMPLES)
    actions = parser.add_subparsers(title="actions", dest="action", required=True, help="what to do with them")
    verify = actions.add_parser("verify", help="compare every file with its checksum")
    stats = actions.add_parser("stats", help="count images, objects, labels and bytes")
    merge = actions.add_parser("merge", help="join stores of one refiner into a new one")
    export = actions.add_parser("export", help="write the rows as Parquet")
    for action in (verify, stats, export):
        action.add_argument("store", metavar="STORE", type=Path)
    merge.add_argument("stores", metavar="STORE", type=Path, nargs="+")
    for action in (merge, export):
        action.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder")
    stats.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    from lyrics import RefinementStore

    if arguments.action == "merge":
        merged = RefinementStore.merge(arguments.stores, arguments.out)
        print(f"Wrote {len(merged):,} images of {len(arguments.stores)} stores to {merged.path}")
        return 0
    store = RefinementStore.open(arguments.store)
    if arguments.action == "verify":
        print(f"{store.path}: {store.verify()} files and {len(store):,} images are as they were written")
    elif arguments.action == "export":
        store.export(arguments.out)
        print(f"Wrote {len(store):,} images to {arguments.out}")
    else:
        found = store.stats()
        print(json.dumps(asdict(found), ensure_ascii=False) if arguments.json else describe_stats(found))
    return 0


def describe_stats(found: StoreStats) -> str:
    """Return counts as lines of text."""
    labels = ", ".join(f"{printable(label)} {count:,}" for label, count in found.common_labels.items())
    return "\n".join(
        [
            f"Images: {found.pictures:,}, and {found.failures:,} that could not be refined",
            f"Bytes: {found.bytes:,}, {found.bytes_per_picture:,.0f} per image",
            f"Objects: {found.objects:,}, {found.objects_per_picture:.1f} per image, at most {found.most_objects}; "
            f"{found.pictures_without_objects:,} images have none",
            f"Region features: {found.region_feature_type}, {found.region_feature_size} numbers each",
            *([f"Pixels: {found.pixels}"] if found.pixels else []),
            f"Labels: {found.labels:,}, most often {labels or 'none'}",
        ]
    )
