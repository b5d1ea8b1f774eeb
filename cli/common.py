"""What the commands share: arguments, loading, and how objects are printed."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import torch

from lyrics.assets import MICRO_CHECKPOINT
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects, format_box
from lyrics.refinement import RefinementStore

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

NO_MODEL = (
    "no model: give --model DIR or --model HUB_ID. `lyrics init --size micro --out DIR` writes a tiny random one to "
    "try everything with."
)
MICRO_MODEL = (
    "No --model is given: the micro model is used, which ships with the package and knows nothing but scenes of "
    "colored shapes."
)

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def printable(text: str) -> str:
    """Text for a terminal: control characters, which could steer it, are shown as escapes."""
    return "".join(
        character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
        for character in text
    )


def add_model_arguments(parser: argparse.ArgumentParser, micro: bool = False) -> None:
    """`--model`, `--device`, `--dtype`, `--tag-thresholds`, `--store` and `--json`.

    Args:
        parser: which receives them.
        micro: whether the model that ships with the package is taken when none is given.
    """
    default = " (default: the micro model, which ships with the package and knows scenes of shapes)" if micro else ""
    parser.add_argument("--model", metavar="DIR|ID", help=f"a checkpoint's directory or Hub id{default}")
    parser.set_defaults(micro=micro)
    parser.add_argument("--device", help="where to run, such as cpu, cuda or cuda:1 (default: cuda where there is one)")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: as they were saved)")
    parser.add_argument(
        "--tag-thresholds",
        metavar="FILE",
        type=Path,
        help="thresholds of the tagger, one per tag and line (the published checkpoint holds none)",
    )
    parser.add_argument(
        "--store", metavar="STORE", type=Path, help="look objects up in a store of refine-dataset first"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def require_new_folder(out: Path) -> None:
    """Raise a `ValueError` when `--out` holds anything."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"--out {out} exists and is not an empty directory.")


def choose_device(name: str | None) -> torch.device:
    """The device asked for, or CUDA where there is one.

    Raises:
        ValueError: when there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot run on device {name!r}: {reason}") from error
    return device


def load_processor(arguments: argparse.Namespace) -> LyricsProcessor:
    """The processor of `--model`, its refiner on the chosen device; without one `--model` becomes the micro model."""
    if arguments.model is None:
        if not arguments.micro:
            raise ValueError(NO_MODEL)
        print(MICRO_MODEL, file=sys.stderr)
        arguments.model = str(MICRO_CHECKPOINT)
    if not Path(arguments.model).is_dir() and not _HUB_ID.fullmatch(arguments.model):
        raise ValueError(f"--model {arguments.model}: there is no such directory, and it is not a Hub id (OWNER/NAME).")
    refiner_kwargs: dict[str, Any] = {}
    if arguments.tag_thresholds is not None:
        refiner_kwargs["tag_thresholds"] = arguments.tag_thresholds
    processor = LyricsProcessor.from_pretrained(arguments.model, refiner_kwargs=refiner_kwargs)
    processor.to(choose_device(arguments.device), DTYPES.get(arguments.dtype))
    if arguments.store is not None:
        processor.store = RefinementStore.open(arguments.store)
    return processor


def describe_objects(objects: VisualObjects) -> str:
    """The objects as lines of text."""
    if not len(objects):
        return "Objects: none"
    lines = [
        f"  {score:.2f}  {printable(label)}  {format_box(box.tolist())}"
        for label, score, box in zip(objects.labels, objects.scores, objects.boxes, strict=True)
    ]
    return "\n".join([f"Objects ({len(objects)}), best first, boxes as [x1, y1, x2, y2] in [0, 1]:", *lines])
