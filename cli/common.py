"""Arguments, loading and printing that several commands share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lyrics import Lyrics, LyricsProcessor, VisualObjects
    from lyrics.utils.model_card import CardFacts

DTYPES = ("float32", "bfloat16", "float16")

MICRO_MODEL = (
    "No --model is given: the micro model is used, which ships with the package and knows nothing but scenes of "
    "colored shapes."
)


def positive_int(text: str) -> int:
    """Read an option that must be a whole number from 1 on."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def port_number(text: str) -> int:
    """Read an option that must be a port, or 0."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"must lie in [0, 65535], got {value}")
    return value


def share(text: str) -> float:
    """Read an option that must be a number in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not 0 <= value <= 1:  # also refuses nan
        raise argparse.ArgumentTypeError(f"must lie in [0, 1], got {value}")
    return value


def printable(text: str) -> str:
    """Return text for a terminal: control characters, which could steer it, become escapes."""
    return "".join(
        character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
        for character in text
    )


def on_one_line(text: str) -> str:
    """Return a name or a path for a terminal, with line breaks as escapes too."""
    return printable(text).replace("\n", "\\n")


def add_command(commands: Any, name: str, help_text: str, description: str, examples: str) -> argparse.ArgumentParser:
    """Add the parser of a command, with examples below its options."""
    return commands.add_parser(
        name,
        help=help_text,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_generation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of an answer: its length, draws and beams."""
    parser.add_argument(
        "--max-new-tokens", metavar="N", type=positive_int, default=256, help="longest answer (default: 256)"
    )
    parser.add_argument(
        "--temperature", metavar="T", type=float, default=0.0, help="draw tokens at this temperature (default: 0, none)"
    )
    parser.add_argument("--top-p", metavar="P", type=share, help="draw among the tokens of this probability mass")
    parser.add_argument("--num-beams", metavar="N", type=positive_int, default=1, help="search with beams (default: 1)")
    parser.add_argument("--seed", metavar="N", type=int, help="seed of the draws (default: another one each time)")


def generation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `add_generation_arguments` as fields of `GenerationOptions`.

    Raises:
        ValueError: an option is out of its range, or has no effect without another.
    """
    from lyrics.serving import GenerationOptions

    options = {name: getattr(arguments, name) for name in ("max_new_tokens", "temperature", "num_beams", "seed")}
    for name in ("top_p", "seed"):
        value = getattr(arguments, name)
        if value is not None and not arguments.temperature:
            raise ValueError(f"--{name.replace('_', '-')} {value:g} needs a --temperature above 0: nothing is drawn.")
    if arguments.top_p is not None:
        options["top_p"] = arguments.top_p
    GenerationOptions(**options)
    return options


def quiet_loading() -> None:
    """Hide the bars that Transformers shows for each file of weights."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def add_model_arguments(parser: argparse.ArgumentParser, json: bool = True) -> None:
    """Add `--model`, `--device`, `--dtype`, `--tag-thresholds`, `--store` and, where wanted, `--json`."""
    parser.add_argument(
        "--model",
        metavar="DIR|ID",
        help="a checkpoint's directory or Hub id (default: the micro model, which ships with the package and knows "
        "scenes of shapes)",
    )
    parser.add_argument("--device", help="where to run, such as cpu, cuda or cuda:1 (default: cuda where there is one)")
    add_dtype_argument(parser)
    parser.add_argument(
        "--tag-thresholds",
        metavar="FILE",
        type=Path,
        help="thresholds of the tagger, one per tag and line (the published checkpoint holds none)",
    )
    parser.add_argument(
        "--store", metavar="STORE", type=Path, help="look objects up in a store of refine-dataset first"
    )
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_dtype_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--dtype` of a command that runs a model."""
    parser.add_argument(
        "--dtype",
        choices=("auto", *DTYPES),
        help="dtype of the weights; auto: bfloat16 where the device computes it natively, else float32 (default: as "
        "they were saved)",
    )


def add_output_arguments(parser: argparse.ArgumentParser, dtype_default: str) -> None:
    """Add `--out`, `--dtype` and `--max-shard-size` of a command that writes a model."""
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="an empty or a new directory")
    parser.add_argument("--dtype", choices=DTYPES, help=f"dtype of the weights (default: {dtype_default})")
    parser.add_argument("--max-shard-size", default="5GB", help="largest size of a weight file (default: 5GB)")


def add_font_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--font` of a command that writes images with labels."""
    parser.add_argument(
        "--font",
        metavar="FILE",
        type=Path,
        help="font for labels in written images (default: one that is installed and has their characters)",
    )


def require_font(path: Path | None) -> None:
    """Raise a `ValueError` when `--font` names no font, before any work is done."""
    from lyrics.processing_lyrics.label_fonts import open_font

    if path is not None:
        open_font(path)


def require_new_folder(out: Path) -> None:
    """Raise a `ValueError` when `--out` holds anything but what a killed writer of a model left there."""
    from lyrics.utils.model_folder import is_unfinished

    if out.exists() and not (out.is_dir() and is_unfinished(out)):
        raise ValueError(f"--out {out} exists and is not an empty directory.")


def write_output(
    arguments: argparse.Namespace, model: Any, processor: Any, facts: CardFacts, earlier: Path | None = None
) -> None:
    """Write a model, its processor and its card to `--out`: the whole, or nothing that is taken for a model.

    Args:
        arguments: namespace with `out` and `max_shard_size`.
        model, processor: model and processor.
        facts: facts of the card.
        earlier: card of the model that this one was made from, whose training and results are its own.
    """
    from lyrics.utils.model_card import write_card
    from lyrics.utils.model_folder import write_model

    with write_model(arguments.out) as folder:
        model.save_pretrained(folder, max_shard_size=arguments.max_shard_size)
        processor.save_pretrained(folder)
        write_card(folder, facts, earlier=earlier)


def require_picture_file(option: str, path: Path | None, images: Sequence[str]) -> None:
    """Check that an image can be written to a path, before any work is done for it.

    Args:
        option: name of the option that names the path.
        path: path, or `None` where nothing is written.
        images: paths and URLs of the command's images, which are not overwritten.

    Raises:
        ValueError: the folder is missing, the ending is that of no image format, or the path is taken.
    """
    from PIL import Image

    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a folder" if path.is_dir() else f"cannot be written: there is no folder {path.parent}"
        raise ValueError(f"{option} {path} {reason}.")
    image_format = Image.registered_extensions().get(path.suffix.lower())
    try:
        Image.new("RGB", (8, 8)).save(BytesIO(), image_format or "")
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{option} {path}: no image can be written as {path.suffix!r}; use .png or .jpg.") from error
    if any(os.path.exists(image) and path.exists() and path.samefile(image) for image in images):
        raise ValueError(f"{option} {path} is the image itself, which is not overwritten.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{option} {path} must not be written by this user.")


def model_name(model: str | None) -> str:
    """Return the name of a model for people: that of its folder, or its Hub id."""
    if model is None:
        return "lyrics-micro"
    return os.path.basename(os.path.abspath(model)) if os.path.isdir(model) else model


def is_loopback(address: str) -> bool:
    """Return whether an IP address is reached from this machine alone."""
    from ipaddress import ip_address

    return ip_address(address.partition("%")[0]).is_loopback


def load_processor(arguments: argparse.Namespace) -> LyricsProcessor:
    """Load the processor of `--model`, with its refiner on the chosen device.

    Without `--model`, `arguments.model` becomes the micro model.
    """
    import lyrics
    from lyrics.serving import loading

    if arguments.model is None:
        loading.choose_device(arguments.device)  # a wrong one is told before the model
        print(MICRO_MODEL, file=sys.stderr)
        arguments.model = str(lyrics.MICRO_CHECKPOINT)
    return loading.load_processor(
        arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        store=arguments.store,
        tag_thresholds=arguments.tag_thresholds,
    )


def load_assistant(arguments: argparse.Namespace, processor: LyricsProcessor, **options: Any) -> Lyrics:
    """Load the model of `--model` beside its processor, which `load_processor` has returned."""
    from lyrics import Lyrics
    from lyrics.serving import loading

    model = loading.load_model(arguments.model, device=arguments.device, dtype=arguments.dtype)
    return Lyrics(model, processor, **options)


def describe_objects(objects: VisualObjects) -> str:
    """Return the objects as lines of text."""
    from lyrics.processing_lyrics import format_box

    if not len(objects):
        return "Objects: none"
    lines = [
        f"  {score:.2f}  {printable(label)}  {format_box(box.tolist())}"
        for label, score, box in zip(objects.labels, objects.scores, objects.boxes, strict=True)
    ]
    return "\n".join([f"Objects ({len(objects)}), best first, boxes as [x1, y1, x2, y2] in [0, 1]:", *lines])
