"""`python -m lyrics.recipes.micro`: train and evaluate the micro model, or any of the models it is compared with."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from transformers.utils import logging

from .ablations import VARIANTS
from .pipeline.parallel import Task, run_together
from .pipeline.pretrained import take_shipped
from .pipeline.steps import NEEDS, OWN, SHARED, STEPS, Workshop, has_finished, run_steps
from .report.table import SEEDS, write_table

EXAMPLES = """examples:
  python -m lyrics.recipes.micro                          # the full model, from nothing; goes on where it stopped
  python -m lyrics.recipes.micro --variant no_refiner --seed 1
  python -m lyrics.recipes.micro --from-shipped           # the two stages alone, with the parts that the package ships
  python -m lyrics.recipes.micro --table                  # every variant with three seeds, and the table
  python -m lyrics.recipes.micro --smoke --out smoke      # minutes, to see that everything runs
"""
_LOG = "log.txt"


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
    parser.add_argument(
        "--from-shipped",
        action="store_true",
        help="take vision encoder, refiner and language model from the package, and train the two stages with them",
    )
    parser.add_argument("--table", action="store_true", help="every variant with every seed, and the table")
    parser.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="how many shared steps, and models of the table, are trained at once, each with its share of the cores "
        "and a log.txt in its folder (default: 2; 1 with a single core, with --steps and with --smoke)",
    )
    arguments = parser.parse_args()
    if arguments.at_once is not None and arguments.at_once < 1:
        parser.error(f"--at-once must be at least 1, got {arguments.at_once}")
    logging.set_verbosity_info()
    logging.disable_default_handler()
    logging.enable_default_handler()
    models = [(name, seed) for seed in SEEDS for name in VARIANTS]
    shops = [
        Workshop(arguments.out, name, seed, arguments.smoke)
        for name, seed in (models if arguments.table else [(arguments.variant, arguments.seed)])
    ]
    if arguments.from_shipped:
        take_shipped(shops[0])
    at_once = arguments.at_once
    if at_once is None:
        at_once = 1 if arguments.steps or arguments.smoke else min(2, os.cpu_count() or 1)
    if at_once > 1:
        run_together(_shared_tasks(shops[0], arguments.steps or SHARED), at_once)
        if arguments.table:
            run_together(_model_tasks(shops, arguments.steps or OWN), at_once)
    for shop in shops:
        run_steps(shop, arguments.steps)
    if arguments.table:
        write_table(arguments.out, arguments.out / "table.md")


def _shared_tasks(shop: Workshop, steps: Iterable[str]) -> dict[str, Task]:
    """One for each shared step that has not finished."""
    return {
        name: Task(_options(shop, [name]), shop.folder(name) / _LOG, NEEDS.get(name, ()))
        for name in SHARED
        if name in steps and not has_finished(shop, name)
    }


def _model_tasks(shops: Iterable[Workshop], steps: Iterable[str]) -> dict[str, Task]:
    """One for each model, with its own steps that have not finished."""
    tasks = {}
    for shop in shops:
        if left := [name for name in OWN if name in steps and not has_finished(shop, name)]:
            folder = shop.folder(left[0]).parent
            tasks[folder.name] = Task(_options(shop, left), folder / _LOG)
    return tasks


def _options(shop: Workshop, steps: list[str]) -> list[str]:
    smoke = ["--smoke"] if shop.smoke else []
    return [
        "-m",
        str(__package__),
        "--out",
        str(shop.out),
        "--variant",
        shop.name,
        "--seed",
        str(shop.seed),
        *smoke,
        "--steps",
        *steps,
    ]


if __name__ == "__main__":
    main()
