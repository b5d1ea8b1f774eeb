"""`lyrics search`: images that fit a text, or that are similar to an image."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    add_command,
    add_dtype_argument,
    add_font_argument,
    on_one_line,
    positive_int,
    printable,
    quiet_loading,
    require_font,
    require_picture_file,
)

if TYPE_CHECKING:
    from lyrics.retrieval import Hit, PictureSearch

MICRO = (
    "No --model is given: the micro first stage for search is used, which ships with the package and knows nothing "
    "but scenes of colored shapes."
)
EXAMPLES = """examples:
  lyrics search photos "a red star left of a ring"     # with the micro model, which ships with the package
  lyrics search photos "a dog on a beach" --model DIR --top 10 --save found.png
  lyrics search photos --image query.jpg --model DIR
  lyrics search photos "a dog" --model DIR --refiner OTHER --store seen --json

The first search embeds all images, and keeps that in a folder beside them (IMAGES.index). It resumes where it was
stopped, and later searches embed only what is new or has changed.
"""
RERANKED = 128  # as in evaluation.metrics.retrieval, whose import takes seconds


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = "Find the images that fit a text, or that are similar to an image, with a trained first stage."
    parser = add_command(commands, "search", "find images by a text or an image", description, EXAMPLES)
    parser.add_argument(
        "pictures",
        metavar="IMAGES",
        help="a folder of images, or another source of `lyrics refine-dataset`",
    )
    parser.add_argument("query", metavar="QUERY", nargs="?", help="a description of the image")
    parser.add_argument("--image", metavar="FILE", help="path or URL of an image to compare with, instead of QUERY")
    parser.add_argument("--top", metavar="N", type=positive_int, default=5, help="how many images (default: 5)")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write a sheet of the images, such as found.png")
    parser.add_argument(
        "--index", metavar="DIR", type=Path, help="folder of the embeddings (default: IMAGES.index or STORE.index)"
    )
    parser.add_argument(
        "--rerank",
        metavar="N",
        type=int,
        default=RERANKED,
        help=f"images that are compared with QUERY more closely, at least --top; 0 for none (default: {RERANKED})",
    )
    parser.add_argument(
        "--model",
        metavar="DIR|ID",
        help="a first stage's directory or Hub id (default: the micro one for search, which ships with the package)",
    )
    parser.add_argument("--refiner", metavar="DIR|ID", help="a model whose refiner is used, if --model has none")
    parser.add_argument(
        "--store", metavar="STORE", type=Path, help="look objects up in a store of refine-dataset first"
    )
    parser.add_argument("--device", help="where to run, such as cpu, cuda or cuda:1 (default: cuda where there is one)")
    add_dtype_argument(parser)
    parser.add_argument(
        "--batch-size", metavar="N", type=positive_int, default=16, help="images at a time (default: 16)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_font_argument(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Index what is new, search, and print."""
    if (arguments.query is None) == (arguments.image is None):
        arguments.parser.error("give either QUERY or --image")
    if arguments.query is not None and not arguments.query.strip():
        raise ValueError("The query is empty: describe the image.")
    if arguments.image is not None and not arguments.image.strip():
        raise ValueError("--image is empty: name a file.")
    if arguments.rerank < 0:
        raise ValueError(f"--rerank must be at least 0, got {arguments.rerank}.")
    require_font(arguments.font)
    require_picture_file("--save", arguments.save, [arguments.image] if arguments.image else [])
    if arguments.save and Path(os.path.abspath(arguments.pictures)) in Path(os.path.abspath(arguments.save)).parents:
        raise ValueError(f"--save {arguments.save} lies in {arguments.pictures}: the next search would find it there.")
    index = choose_index(arguments)

    from lyrics.datasets_lyrics.open_data import open_source
    from lyrics.retrieval import PictureSearch, load_encoder

    source = open_source(arguments.pictures, shard_size=256)
    quiet_loading()
    if arguments.model is None:
        print(MICRO, file=sys.stderr)
    encoder = load_encoder(
        arguments.model,
        refiner=arguments.refiner,
        store=arguments.store,
        device=arguments.device,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
    )
    query: Any = arguments.query
    picture = encoder.processor.load_pictures(arguments.image)[0] if arguments.image else None
    search = PictureSearch(source, encoder, index)
    added = search.update()
    report_update(search, added)
    if picture is not None:
        hits = search.by_image(picture, arguments.top)
    else:
        hits = search.by_text(query, arguments.top, arguments.rerank)
    if arguments.save:
        save_sheet(arguments, search, hits)
    if arguments.json:
        print(json.dumps(describe(arguments, search, hits), ensure_ascii=False, indent=2))
        return 0
    for number, hit in enumerate(hits, 1):
        print(f"{number:>3}. {line_of(hit)}")
    if arguments.save:
        print(on_one_line(f"Sheet: {arguments.save}"))
    return 0


def choose_index(arguments: argparse.Namespace) -> Path:
    """Return the folder of the index, beside the store or the images.

    Raises:
        ValueError: neither is a folder or file of this machine, and `--index` is missing.
    """
    if arguments.index is not None:
        if arguments.index.exists() and not arguments.index.is_dir():
            raise ValueError(f"--index {arguments.index} is a file, and not a folder.")
        return arguments.index
    beside = arguments.store or arguments.pictures
    if not os.path.exists(beside):
        if "://" in str(beside) or str(beside).startswith((".", "/")):
            raise ValueError(f"There is no {beside}.")
        raise ValueError(f"{beside} is no file or folder: name a folder for the embeddings (--index DIR).")
    path = Path(os.path.abspath(beside))
    return path.with_name(f"{path.name}.index")


def report_update(search: PictureSearch, added: int) -> None:
    """Print what was indexed, and the images that could not be read."""
    for key, reason in list(search.failures.items())[:10]:
        print(on_one_line(f"not indexed: {key}: {reason}"), file=sys.stderr)
    if (more := len(search.failures) - 10) > 0:
        print(f"not indexed: and {more} more images", file=sys.stderr)
    if added:
        pictures = f"{added:,} image{'s' * (added != 1)}"
        print(on_one_line(f"Indexed {pictures} in {search.path}; {len(search):,} can be found."), file=sys.stderr)


def line_of(hit: Hit) -> str:
    """Return an image that was found as a line of text."""
    match = "" if hit.match is None else f"match {hit.match:4.0%}  "
    return f"{match}similarity {hit.similarity:5.2f}  {on_one_line(hit.key)}"


def describe(arguments: argparse.Namespace, search: PictureSearch, hits: list[Hit]) -> dict[str, Any]:
    """Return a search as JSON."""
    return {
        "query": arguments.query,
        "image": arguments.image,
        "index": str(search.path),
        "pictures": len(search),
        "failed": search.failures,
        "found": [
            {"picture": hit.key, "similarity": round(hit.similarity, 4), "match": hit.match and round(hit.match, 4)}
            for hit in hits
        ],
        "sheet": str(arguments.save) if arguments.save else None,
    }


def save_sheet(arguments: argparse.Namespace, search: PictureSearch, hits: list[Hit]) -> None:
    """Write the sheet of the images that were found."""
    from lyrics.retrieval import draw_contact_sheet
    from lyrics.utils.atomic_files import naming_disk_errors

    captions = [f"{number}. {printable(hit.key)}" for number, hit in enumerate(hits, 1)]
    title = printable(arguments.query or f"similar to {arguments.image}")
    sheet = draw_contact_sheet([search.load(hit.key) for hit in hits], captions, title, arguments.font)
    with naming_disk_errors(arguments.save):
        sheet.save(arguments.save)
