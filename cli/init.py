"""`lyrics init`: a complete checkpoint with random weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import add_command, require_new_folder

EXAMPLES = """example:
  lyrics init --size micro --out my-micro
  lyrics ask photo.jpg "What is on the table?" --model my-micro
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = "Write model, processor and refiner with random weights. They answer nothing sensible."
    help_text = "write a tiny random checkpoint to try everything with"
    parser = add_command(commands, "init", help_text, description, EXAMPLES)
    parser.add_argument(
        "--size",
        choices=["micro"],
        default="micro",
        help="size (default: micro, some millions of weights)",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="an empty or a new directory")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the checkpoint."""
    from lyrics.assets import write_random_checkpoint

    require_new_folder(arguments.out)
    write_random_checkpoint(arguments.out, seed=arguments.seed)
    print(f"Wrote model, processor and refiner with random weights to {arguments.out}")
    return 0
