"""`lyrics refine`: the objects of images."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    add_command,
    add_font_argument,
    add_model_arguments,
    describe_objects,
    load_processor,
    on_one_line,
    positive_int,
    printable,
    require_font,
)

if TYPE_CHECKING:
    from lyrics import LyricsProcessor, VisualObjects

EXAMPLES = """examples:
  lyrics refine scene.png                       # with the micro model, which ships with the package
  lyrics refine photo.jpg --model DIR
  lyrics refine photos/*.jpg --model DIR --out seen
  lyrics refine photo.jpg --model DIR --tags "cat, fire truck"

With --out, every image gets NAME.objects.png, the image with its objects, and NAME.objects.safetensors, which
`lyrics ask --objects` and `VisualObjects.load` read.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = "Find the objects of images: tags, labelled boxes with scores, and reusable region features."
    parser = add_command(commands, "refine", "find the objects of images", description, EXAMPLES)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="paths or URLs of images")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for images with boxes, and for objects")
    parser.add_argument("--tags", metavar="WORDS", help="look for these words, separated by commas, instead of tagging")
    parser.add_argument("--batch-size", metavar="N", type=positive_int, default=8, help="images at a time (default: 8)")
    parser.add_argument("--masks", action="store_true", help="find the objects' masks as well")
    add_font_argument(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Refine every image; those that cannot be read are named, and do not stop the others."""
    from tqdm import tqdm

    tags = None if arguments.tags is None else [word.strip() for word in arguments.tags.split(",") if word.strip()]
    if tags == []:
        raise ValueError(f"--tags {arguments.tags!r} names no word to look for.")
    if arguments.out and arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out} is a file, and not a folder.")
    require_font(arguments.font)
    processor = load_processor(arguments)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    size, names, done = arguments.batch_size, arguments.images, 0
    results: list[dict[str, Any]] = []
    taken: set[str] = set()
    with tqdm(total=len(names), desc="Refining", disable=None if len(names) > 1 else True) as progress:
        for batch in (names[start : start + size] for start in range(0, len(names), size)):
            pictures = load_all(processor, batch)
            seen = processor.refine(
                [picture for _, picture in pictures], tags=tags, batch_size=size, return_masks=arguments.masks
            )
            for (name, picture), objects in zip(pictures, seen, strict=True):
                files = {}
                if arguments.out:
                    files = write_files(processor, picture, objects, name, arguments.out, taken, arguments.font)
                results.append({"image": name, "tags": objects.tags, "objects": objects.summary(), **files})
                if not arguments.json:
                    tqdm.write(describe_picture(name, objects, files), file=sys.stdout)
            done += len(pictures)
            progress.update(len(batch))
    if arguments.json:
        print(json.dumps(results, ensure_ascii=False, indent=2))
    return 0 if done == len(names) else 2


def load_all(processor: LyricsProcessor, names: list[str]) -> list[tuple[str, Any]]:
    """Return names and images that can be read; report the others."""
    from tqdm import tqdm

    pictures = []
    for name in names:
        try:
            pictures.append((name, processor.load_pictures(name)[0]))
        except ValueError as error:
            tqdm.write(on_one_line(f"lyrics refine: error: {error}"), file=sys.stderr)
    return pictures


def describe_picture(name: str, objects: VisualObjects, files: dict[str, str]) -> str:
    """Return what was found in an image as lines of text."""
    tags = printable(", ".join(objects.tags)) or "none"
    wrote = [on_one_line(f"Wrote {file}") for file in files.values()]
    return "\n".join([on_one_line(name), f"Tags: {tags}", describe_objects(objects), *wrote])


def write_files(
    processor: LyricsProcessor,
    picture: Any,
    objects: VisualObjects,
    image: str,
    out: Path,
    taken: set[str],
    font: Path | None,
) -> dict[str, str]:
    """Write overlay and objects; images of one name in different folders do not overwrite each other."""
    from lyrics.utils.atomic_files import naming_disk_errors

    stem = name = Path(image.split("?")[0]).stem or "image"
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    overlay, data = out / f"{name}.objects.png", out / f"{name}.objects.safetensors"
    with naming_disk_errors(overlay):
        processor.visualize(picture, objects, font=font).save(overlay)
    objects.save(data)
    return {"overlay": str(overlay), "data": str(data)}
