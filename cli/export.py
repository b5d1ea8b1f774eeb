"""`lyrics export`: a model or an adapter as a directory that is ready for the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import add_command, require_new_folder

EXAMPLES = """examples:
  lyrics export merged --out ready --remote-code
  lyrics export runs/stage2 --out ready --base-model OWNER/BASE
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = (
        "Write what a reader of the model needs: weights as safetensors, processor, refiner, both tokenizers, chat "
        "template and model card. Optimizer states, checkpoints, logs and paths of this machine stay behind."
    )
    parser = add_command(commands, "export", "write a directory that is ready for the Hub", description, EXAMPLES)
    parser.add_argument("source", metavar="DIR", help="directory of a model, a first stage or an adapter")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="an empty or a new directory")
    add_export_arguments(parser)
    parser.set_defaults(run=run)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `export` and `push` share."""
    parser.add_argument(
        "--remote-code",
        action="store_true",
        help="write the model's modules beside it, for machines without this package (trust_remote_code=True)",
    )
    parser.add_argument("--base-model", metavar="ID", help="Hub id of the base model, needed if that is a directory")
    parser.add_argument("--refiner", metavar="DIR|ID|none", help="checkpoint of the refiner, where DIR has none")
    parser.add_argument("--license", metavar="NAME", help="licence by the Hub's name (default: that of the base model)")
    parser.add_argument("--language", metavar="CODE", nargs="+", default=(), help="languages of the answers (en zh)")


def export_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `add_export_arguments` as arguments of `export_model`."""
    names = ("remote_code", "base_model", "refiner", "license", "language")
    return {name: getattr(arguments, name) for name in names}


def list_files(folder: Path) -> str:
    """Return the files of a folder with their sizes, one a line."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    lines = [f"{path.stat().st_size:>15,}  {path.relative_to(folder)}" for path in files]
    return "\n".join([*lines, f"{sum(path.stat().st_size for path in files):>15,}  bytes in {len(files)} files"])


def run(arguments: argparse.Namespace) -> int:
    """Export, and list what was written."""
    from lyrics.conversion import export_model

    require_new_folder(arguments.out)
    export_model(arguments.source, arguments.out, **export_options(arguments))
    print(list_files(arguments.out))
    print(f"Wrote {arguments.out}; next: lyrics push {arguments.out} OWNER/NAME")
    return 0
