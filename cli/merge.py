"""`lyrics merge`: an adapter and its base model as one model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import DTYPES, require_new_folder

EXAMPLES = """example:
  lyrics merge runs/stage2 --out merged --dtype bfloat16
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "merge",
        help="put an adapter into its base model",
        description="Write one model, with processor and refiner, from the adapter that `lyrics sft` wrote.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("adapter", metavar="DIR", help="the adapter's directory")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="an empty or a new directory")
    parser.add_argument("--base-model", metavar="DIR|ID", help="where the base model lies now, if it has moved")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: as the base model's were saved)")
    parser.add_argument("--max-shard-size", default="5GB", help="of a file (default: 5GB)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Merge and write."""
    from lyrics.conversion import merge_adapter

    require_new_folder(arguments.out)
    dtype = DTYPES.get(arguments.dtype, "auto")
    model, processor = merge_adapter(arguments.adapter, base_model=arguments.base_model, dtype=dtype)
    model.save_pretrained(arguments.out, max_shard_size=arguments.max_shard_size)
    processor.save_pretrained(arguments.out)
    print(f"Wrote the merged model to {arguments.out}")
    return 0
