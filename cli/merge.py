"""`lyrics merge`: an adapter and its base model as one model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import add_command, add_output_arguments, require_new_folder, write_output

EXAMPLES = """example:
  lyrics merge runs/stage2 --out merged --dtype bfloat16
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = "Write one model, with processor and refiner, from the adapter that `lyrics sft` wrote."
    parser = add_command(commands, "merge", "merge an adapter into its base model", description, EXAMPLES)
    parser.add_argument("adapter", metavar="DIR", help="the adapter's directory")
    parser.add_argument("--base-model", metavar="DIR|ID", help="the base model's present place, if it has moved")
    add_output_arguments(parser, "as the base model's were saved")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Merge and write."""
    from lyrics import merge_adapter
    from lyrics.conversion.card_facts import describe_merge, name_of_folder

    require_new_folder(arguments.out)
    dtype = arguments.dtype or "auto"
    model, processor = merge_adapter(arguments.adapter, base_model=arguments.base_model, dtype=dtype)
    facts = describe_merge(name_of_folder(arguments.out), arguments.adapter, arguments.base_model)
    write_output(arguments, model, processor, facts, earlier=Path(arguments.adapter) / "README.md")
    print(f"Wrote the merged model to {arguments.out}")
    return 0
