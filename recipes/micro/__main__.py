"""`python -m lyrics.recipes.micro`: train and evaluate the micro model, or any of the models it is compared with."""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers.utils import logging

from .steps import STEPS, Workshop, run_steps
from .table import SEEDS, write_table
from .variants import VARIANTS

EXAMPLES = """examples:
  python -m lyrics.recipes.micro                          # the full model, from nothing; goes on where it stopped
  python -m lyrics.recipes.micro --variant no_refiner --seed 1
  python -m lyrics.recipes.micro --table                  # every variant with three seeds, and the table
  python -m lyrics.recipes.micro --smoke --out smoke      # minutes, to see that everything runs
"""


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(
        prog="python -m lyrics.recipes.micro",
        description="Train a small, complete Lyrics from nothing on pictures that are drawn on the spot.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/micro"), help="folder of all steps (default: runs/micro)"
    )
    parser.add_argument("--variant", choices=VARIANTS, default="full", help="which model (default: full)")
    parser.add_argument("--seed", type=int, default=0, help="of the two stages (default: 0)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, metavar="STEP", help=f"some of {', '.join(STEPS)}")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a few scenes")
    parser.add_argument("--table", action="store_true", help="every variant with every seed, and the table")
    arguments = parser.parse_args()
    logging.set_verbosity_info()
    logging.disable_default_handler()
    logging.enable_default_handler()
    if not arguments.table:
        run_steps(Workshop(arguments.out, arguments.variant, arguments.seed, arguments.smoke), arguments.steps)
        return
    for seed in SEEDS:
        for name in VARIANTS:
            run_steps(Workshop(arguments.out, name, seed, arguments.smoke), arguments.steps)
    write_table(arguments.out, arguments.out / "table.md")


if __name__ == "__main__":
    main()
