"""Options and exit status that the commands of cells share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from transformers.utils import logging

from ..common.step_trainer import OutOfTimeError

logger = logging.get_logger(__name__)

OUT_OF_TIME = 3  # exit status of a command whose time was over: it can be run again


def add_cell_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options of all cells.

    Args:
        parser: parser of the command.
        name: name of the folder of results.
    """
    out = Path("runs") / f"micro_{name}"
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--out", type=Path, default=out, help=f"folder of checkpoints (default: {out})")
    parser.add_argument(
        "--results", type=Path, help=f"folder of the results (default: docs/results/{name}; with --smoke in --out)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=40.0,
        help="time after which a training stops with a checkpoint; the same command resumes it (default: 40)",
    )
    parser.add_argument("--store", type=Path, help="store of the training scenes' objects, to save time")
    parser.add_argument("--smoke", action="store_true", help="take a few steps, scenes and questions")


def results_folder(arguments: argparse.Namespace, name: str) -> Path:
    """Return the folder of the results."""
    if arguments.results is not None:
        return arguments.results
    return arguments.out / "results" if arguments.smoke else Path("docs/results") / name


def run_cells(parser: argparse.ArgumentParser, cells: Iterable[Callable[[], Path]]) -> None:
    """Run cells one after the other, and log the files of their results. Exit where the time is over."""
    logging.set_verbosity_info()
    logging.disable_default_handler()
    logging.enable_default_handler()
    try:
        for cell in cells:
            logger.info("results: %s", cell())
    except OutOfTimeError as error:
        parser.exit(OUT_OF_TIME, f"{error}\n")
