"""`lyrics data`: list, check, look at, count and convert data sets as they are distributed; filter image-text pairs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import add_command, on_one_line, positive_int, printable, require_picture_file

if TYPE_CHECKING:
    from lyrics.datasets_lyrics.catalog.checking import CheckResult
    from lyrics.datasets_lyrics.catalog.formats import Format
    from lyrics.datasets_lyrics.catalog.omissions import Omissions
    from lyrics.datasets_lyrics.catalog.reading import CatalogReader

EXAMPLES = """examples:
  lyrics data list --family vqa                              # what to download, and where it must lie
  lyrics data list refcoco vg_regions
  lyrics data check vqav2 --root data/vqav2                  # read every record, decode every image
  lyrics data check rows.jsonl --image-root images         # rows of your own, as training reads them
  lyrics data show refcoco --root data/refcoco --split testA -n 9 --save sheet.png
  lyrics data stats okvqa --root data/okvqa
  lyrics data prepare vqav2:data/vqav2 refcoco:data/refcoco --out data/rows.parquet
  lyrics data filter 'shards/{00000..01242}.tar' --out kept --min-side 200

A data set is NAME with --root DIR, or NAME:DIR, also with a split (NAME/SPLIT:DIR). `lyrics sft --train_data NAME:DIR`
and `lyrics refine-dataset NAME:DIR` read it without conversion.
"""


def add_parser(commands: Any) -> None:
    """Register the command and its actions."""
    description = "Data sets of the field as they are distributed: list, check, look, count, convert, filter."
    parser = add_command(commands, "data", "list, check, show and filter data sets", description, EXAMPLES)
    actions = parser.add_subparsers(title="actions", dest="action", required=True, help="what to do")
    _add_list(actions)
    check = _add_action(actions, "check", "read every record and decode every image; count faults by kind")
    check.add_argument("--no-images", action="store_true", help="do not decode images")
    own = check.add_argument_group("rows of your own", "NAME is then a file of rows, tar shards or a folder")
    own.add_argument("--image-column", metavar="NAME", default="image", help="column of captioned images")
    own.add_argument("--caption-column", metavar="NAME", default="caption", help="column of captions")
    own.add_argument("--box-units", choices=["relative", "pixel"], default="relative", help="units of boxes in rows")
    check.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    show = _add_action(actions, "show", "draw some rows with their boxes and texts")
    show.add_argument("-n", metavar="N", type=positive_int, default=9, help="rows to draw (default: 9)")
    show.add_argument("--save", metavar="FILE", type=Path, required=True, help="image to write")
    show.add_argument("--seed", type=int, default=0, help="which rows are drawn (default: 0)")
    stats = _add_action(actions, "stats", "count rows, images, answers and boxes")
    stats.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    prepare = actions.add_parser("prepare", help="write the rows of data sets as Parquet")
    prepare.add_argument("data", metavar="NAME:DIR", nargs="+", help="data sets; NAME/SPLIT:DIR for a split")
    prepare.add_argument("--out", metavar="FILE", type=Path, required=True, help="a new .parquet file")
    _add_filter(actions)
    parser.set_defaults(run=run)


def _add_filter(actions: Any) -> None:
    description = (
        "Filter tar shards of images and captions (WebDataset). Kept samples lie in tar shards of the same names; "
        "report.json counts what was dropped, and why. The same command resumes."
    )
    parser = actions.add_parser("filter", help="filter image-text pairs in tar shards", description=description)
    parser.add_argument("shards", metavar="SHARDS", help="tar shards, with braces and wildcards in quotes")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the kept samples")
    parser.add_argument("--min-side", metavar="N", type=positive_int, default=200, help="shortest side (default: 200)")
    parser.add_argument("--max-aspect", metavar="R", type=float, default=3.0, help="longest by shortest (default: 3)")
    parser.add_argument("--min-words", metavar="N", type=positive_int, default=3, help="fewest words (default: 3)")
    parser.add_argument("--max-words", metavar="N", type=positive_int, default=80, help="most words (default: 80)")
    parser.add_argument(
        "--language", metavar="CODE", action="append", default=[], help="keep this one; may be repeated"
    )
    parser.add_argument("--strict-language", action="store_true", help="drop captions of an unknown language too")
    parser.add_argument("--keep-noise", action="store_true", help="keep captions that look like file names or URLs")
    parser.add_argument("--keep-duplicates", action="store_true", help="keep images that look the same")
    parser.add_argument("--decide-only", action="store_true", help="count, and write no samples")
    parser.add_argument("--workers", metavar="N", type=positive_int, default=1, help="processes (default: 1)")
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="where to run (default: local)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def _add_list(actions: Any) -> None:
    parser = actions.add_parser("list", help="families, data sets, licences, what to download and where it must lie")
    parser.add_argument("names", metavar="NAME", nargs="*", help="data sets (default: all)")
    parser.add_argument("--family", help="one family only, such as captions or vqa")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def _add_action(actions: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
    parser.add_argument("data", metavar="NAME", help="a data set of `lyrics data list`, or NAME:DIR")
    parser.add_argument("--root", metavar="DIR", help="its folder, or one file of its form")
    parser.add_argument("--split", help="its split (default: the first one)")
    parser.add_argument("--image-root", metavar="DIR", help="further folder that links of images may lead to")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    actions = {"list": _list, "check": _check, "show": _show, "stats": _stats, "prepare": _prepare}
    actions["filter"] = _filter
    return actions[arguments.action](arguments)


def _reader(arguments: argparse.Namespace) -> CatalogReader:
    from lyrics.datasets_lyrics.catalog.registry import find_format, open_word

    name, _, root = arguments.data.partition(":")
    find_format(name.partition("/")[0])
    if root and arguments.root is not None:
        raise ValueError(f"{arguments.data!r} names a folder, and so does --root {arguments.root}: give one of them.")
    if not root and arguments.root is None:
        raise ValueError(f"--root is missing: in which folder is {name}?")
    reader = open_word(f"{name}:{root or arguments.root}", arguments.split)
    reader.warns = False  # faults are printed, by kind
    return reader


def _rows_bar() -> Any:
    """Return a bar that counts rows, where standard error is a terminal."""
    from tqdm import tqdm

    return tqdm(unit=" rows", disable=not sys.stderr.isatty())


def _list(arguments: argparse.Namespace) -> int:
    from lyrics.datasets_lyrics.catalog.registry import CATALOG, find_format

    families = list(dict.fromkeys(one.family for one in CATALOG.values()))
    if arguments.family not in (None, *families):
        raise ValueError(f"There is no family {arguments.family!r}; known are {', '.join(families)}.")
    named = [find_format(name).name for name in arguments.names] or list(CATALOG)
    chosen = [one for one in CATALOG.values() if one.name in named and arguments.family in (None, one.family)]
    if arguments.json:
        names = ("name", "title", "family", "license", "get", "layout")
        sizes = [{name: split.size for name, split in one.splits.items()} for one in chosen]
        files = [{name: split.files for name, split in one.splits.items()} for one in chosen]
        rows = [
            {**{name: getattr(one, name) for name in names}, "splits": size, "files": file}
            for one, size, file in zip(chosen, sizes, files, strict=True)
        ]
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    for family in dict.fromkeys(one.family for one in chosen):
        print(f"{family}\n{'-' * len(family)}")
        for one in (entry for entry in chosen if entry.family == family):
            print(describe_format(one))
        print()
    return 0


def describe_format(data: Format) -> str:
    """Return what a data set is, what to download, and where it must lie, as lines of text."""
    lines = [f"{data.name}: {data.title}", f"  licence:  {data.license}", f"  download: {data.get}"]
    lines.append(f"  images: {data.layout}")
    for name, split in data.splits.items():
        size = f" ({split.size:,} {data.unit})" if split.size else ""
        lines.append(f"  {name}{size}: {', '.join(split.files).replace('|', ' or ')}")
    return "\n".join(lines)


def _check(arguments: argparse.Namespace) -> int:
    from lyrics.datasets_lyrics.catalog.checking import check_data_set
    from lyrics.datasets_lyrics.catalog.reading import NoUsableRowError

    if _holds_own_rows(arguments.data):
        return _check_own_rows(arguments)
    reader = _reader(arguments)
    try:
        with _rows_bar() as bar:
            found = check_data_set(reader, arguments.image_root, not arguments.no_images, bar.update)
    except NoUsableRowError:
        if arguments.json:
            raise
        print(on_one_line(f"{reader.format.title} ({reader.split}) in {reader.folder.root}"))
        print(f"Rows: none from {reader.folder.records:,} records\n{describe_faults(reader.folder.omissions)}")
        return 1
    print(json.dumps(found.as_dict(), ensure_ascii=False) if arguments.json else describe_check(reader, found))
    return 1 if found.faults.total else 0


def _holds_own_rows(word: str) -> bool:
    """Return whether a word is a place of rows, and no data set of the catalog."""
    from lyrics.datasets_lyrics.catalog.registry import CATALOG
    from lyrics.datasets_lyrics.hf_datasets import format_of_file
    from lyrics.datasets_lyrics.webdataset import is_tar_pattern

    if word.partition(":")[0].partition("/")[0] in CATALOG:
        return False
    return os.path.exists(word) or is_tar_pattern(word) or format_of_file(word) is not None


def _check_own_rows(arguments: argparse.Namespace) -> int:
    from lyrics.datasets_lyrics.open_data import open_rows
    from lyrics.datasets_lyrics.row_checking import check_rows

    if arguments.root is not None or arguments.no_images:
        raise ValueError("--root and --no-images are for data sets of the field. Name the folder with --image-root.")
    columns = {"image_column": arguments.image_column, "caption_column": arguments.caption_column}
    rows = open_rows(arguments.data, image_root=arguments.image_root, split=arguments.split or "train", **columns)
    with _rows_bar() as bar:
        found = check_rows(rows, **columns, box_units=arguments.box_units, progress=bar.update)
    if arguments.json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.kinds.items())
        print(on_one_line(f"{arguments.data}: {found.rows:,} rows ({kinds or 'none can be read'})"))
        print(f"{found.pictures:,} images, {found.boxes:,} boxes\n{describe_faults(found.faults)}")
    return 1 if found.faults.total else 0


def describe_check(reader: CatalogReader, found: CheckResult) -> str:
    """Return the result of a check as lines of text."""
    summary = found.summary
    lines = [
        on_one_line(f"{reader.format.title} ({reader.split}) in {reader.folder.root}"),
        f"Rows: {summary.rows:,} from {summary.records:,} records, {found.pictures:,} images",
    ]
    if summary.expected is not None:
        verdict = "which differs from" if summary.differs else "as"
        lines.append(f"Size: {summary.counted:,} {summary.unit}, {verdict} the {summary.expected:,} that are reported")
    if found.repeated_ids:
        lines.append(f"Repeated ids: {found.repeated_ids:,} rows have the id of an earlier one")
    if found.pixels[1]:
        lines.append(f"Pixels: {found.pixels[0]:,} to {found.pixels[1]:,}")
    return "\n".join([*lines, describe_faults(found.faults)])


def describe_faults(faults: Omissions) -> str:
    """Return what was left out, by kind and with examples, as lines of text."""
    lines = [f"Faults: {faults.total:,}"]
    for kind, count in faults.counts.most_common():
        lines.append(on_one_line(f"  {count:>9,}  {kind}"))
        lines += [on_one_line(f"             {example}") for example in faults.examples[kind]]
    return "\n".join(lines)


def _show(arguments: argparse.Namespace) -> int:
    import numpy as np

    from lyrics.datasets_lyrics.catalog.contact_sheet import draw_sheet
    from lyrics.datasets_lyrics.catalog.row_store import guard_of, store_rows
    from lyrics.datasets_lyrics.catalog.rows import canonical

    require_picture_file("--save", arguments.save, [])
    reader = _reader(arguments)
    reader.warns = True  # as where the rows come from the cache
    with _rows_bar() as bar:
        rows = store_rows(reader, progress=bar.update)
    count = min(arguments.n, len(rows))
    chosen = np.sort(np.random.default_rng(arguments.seed).choice(len(rows), count, replace=False))
    drawn = [canonical(rows[int(number)]) for number in chosen]
    draw_sheet(drawn, guard_of(reader, arguments.image_root)).save(arguments.save)
    print(on_one_line(f"Wrote {count} of {len(rows):,} rows to {arguments.save}"))
    return 0


def _stats(arguments: argparse.Namespace) -> int:
    from lyrics.datasets_lyrics.catalog.statistics import measure

    reader = _reader(arguments)
    with _rows_bar() as bar:
        found = measure(reader, bar.update)
    faults = reader.folder.omissions
    if arguments.json:
        print(json.dumps({**found.as_dict(), "faults": dict(faults.counts)}, ensure_ascii=False))
    else:
        print("\n".join([printable(found.describe()), describe_faults(faults)]))
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    from lyrics.datasets_lyrics.catalog.parquet import write_parquet
    from lyrics.datasets_lyrics.catalog.registry import find_format, open_word

    if arguments.out.suffix != ".parquet" or not arguments.out.absolute().parent.is_dir():
        raise ValueError(f"--out {arguments.out} must end in .parquet, in a folder that exists.")
    if arguments.out.exists():
        raise ValueError(f"--out {arguments.out} exists.")
    for word in arguments.data:
        find_format(word.partition(":")[0].partition("/")[0])
    readers = [open_word(word) for word in arguments.data]
    root = os.path.commonpath([reader.folder.root for reader in readers])
    for reader in readers:
        reader.warns = False
    with _rows_bar() as bar:
        count = write_parquet(readers, arguments.out, root, bar.update)
    for reader in readers:
        print(on_one_line(f"{reader.format.name} ({reader.split}) in {reader.folder.root}"))
        print(describe_faults(reader.folder.omissions))
    print(on_one_line(f"Wrote {count:,} rows to {arguments.out}"))
    print(on_one_line(f"Train with --train_data {arguments.out} --image_root {root}"))
    return 0


def _filter(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from lyrics.datasets_lyrics.pair_filter.rules import FilterRules
    from lyrics.datasets_lyrics.pair_filter.run import filter_pairs

    rules = FilterRules(
        arguments.min_side,
        arguments.max_aspect,
        arguments.min_words,
        arguments.max_words,
        tuple(arguments.language),
        arguments.strict_language,
        not arguments.keep_noise,
        not arguments.keep_duplicates,
    )
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out} is a file, and not a folder.")
    copy = not arguments.decide_only
    report = filter_pairs(arguments.shards, arguments.out, rules, arguments.workers, arguments.engine, copy)
    print(json.dumps(asdict(report)) if arguments.json else printable(report.describe()))
    return 0
