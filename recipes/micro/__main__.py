"""Train a small, complete Lyrics model from scratch on synthetic images, and evaluate it.

python -m lyrics.recipes.micro                          # the full model; continues where it stopped
python -m lyrics.recipes.micro --variant no_refiner --seed 1
python -m lyrics.recipes.micro --from-shipped           # only the two stages, with pretrained parts of the package
python -m lyrics.recipes.micro --table                  # every variant with three seeds, and the table
python -m lyrics.recipes.micro --smoke --out smoke      # a few optimization steps, to check that everything runs
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from transformers.utils import logging

from .ablations import VARIANTS
from .common.run_folders import MODEL_STEPS, SHARED_STEPS, RunFolders, add_model_options
from .pipeline.parallel import Task, run_tasks
from .pipeline.pretrained import write_pretrained
from .pipeline.steps import DEPENDENCIES, STEPS, run_steps
from .report.table import SEEDS, format_table


def main() -> None:
    """Run the steps that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m lyrics.recipes.micro",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_options(parser)
    parser.add_argument("--steps", nargs="+", choices=STEPS, metavar="STEP", help=f"some of {', '.join(STEPS)}")
    parser.add_argument("--smoke", action="store_true", help="run a few optimization steps on a few scenes")
    parser.add_argument(
        "--from-shipped",
        action="store_true",
        help="take vision encoder, refiner and language model from the package, and train only the two stages",
    )
    parser.add_argument("--table", action="store_true", help="train every variant with every seed, and write the table")
    parser.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="number of shared steps, or models of the table, that are trained in parallel, each with a share of the "
        "cores and a log.txt in its folder (default: 2; 1 with a single core, with --steps and with --smoke)",
    )
    arguments = parser.parse_args()
    max_parallel = arguments.at_once
    if max_parallel is None:
        max_parallel = 1 if arguments.steps or arguments.smoke else min(2, os.cpu_count() or 1)
    if max_parallel < 1:
        parser.error(f"--at-once must be at least 1, got {max_parallel}")
    logging.set_verbosity_info()
    logging.disable_default_handler()
    logging.enable_default_handler()
    chosen = [(arguments.variant, arguments.seed)]
    if arguments.table:
        chosen = [(name, seed) for seed in SEEDS for name in VARIANTS]
    models = [RunFolders(arguments.out, name, seed, arguments.smoke) for name, seed in chosen]
    if arguments.from_shipped:
        write_pretrained(models[0])
    if max_parallel > 1:
        run_tasks(shared_tasks(models[0], arguments.steps or SHARED_STEPS), max_parallel)
        if arguments.table:
            run_tasks(model_tasks(models, arguments.steps or MODEL_STEPS), max_parallel)
    for folders in models:
        run_steps(folders, arguments.steps)
    if arguments.table:
        (arguments.out / "table.md").write_text(format_table(arguments.out))


def shared_tasks(folders: RunFolders, steps: Iterable[str]) -> dict[str, Task]:
    """Return a task for each of the shared steps that has not finished."""
    return {
        name: _task(folders, [name], folders.folder(name), DEPENDENCIES.get(name, ()))
        for name in SHARED_STEPS
        if name in steps and not folders.has_finished(name)
    }


def model_tasks(models: Iterable[RunFolders], steps: Iterable[str]) -> dict[str, Task]:
    """Return a task for each model, with those of its own steps that have not finished."""
    tasks = {}
    for folders in models:
        if missing := [name for name in MODEL_STEPS if name in steps and not folders.has_finished(name)]:
            folder = folders.folder(missing[0]).parent
            tasks[folder.name] = _task(folders, missing, folder)
    return tasks


def _task(folders: RunFolders, steps: list[str], log_folder: Path, needs: tuple[str, ...] = ()) -> Task:
    """Return the task that runs this module for some steps."""
    options = ["-m", str(__package__), "--out", str(folders.out)]
    options += ["--variant", folders.name, "--seed", str(folders.seed), *["--smoke"] * folders.smoke]
    return Task([*options, "--steps", *steps], log_folder / "log.txt", needs)


if __name__ == "__main__":
    main()
