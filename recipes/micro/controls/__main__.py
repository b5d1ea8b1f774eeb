"""Train and evaluate the controls of the micro model, one cell after the other. A finished cell is not repeated.

python -m lyrics.recipes.micro.controls shipped shipped_blank_view   # no training: the shipped model sees other things
python -m lyrics.recipes.micro.controls segmenter_grid --seed 1      # an arm: about 40 minutes of one core
python -m lyrics.recipes.micro.controls full --store runs/micro/store/all
python -m lyrics.recipes.micro.controls full --smoke --out smoke     # a few steps, to check that it runs
"""

from __future__ import annotations

import argparse
from functools import partial

from .arms import ARMS, EVALUATIONS
from .cells import run_cell
from .command_line import add_cell_options, results_folder, run_cells
from .time_limit import TimeLimit


def main() -> None:
    """Run the cells that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m lyrics.recipes.micro.controls",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*EVALUATIONS, *ARMS]
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    add_cell_options(parser, "controls")
    arguments = parser.parse_args()
    results, limit = results_folder(arguments, "controls"), TimeLimit(arguments.minutes)
    options = {"limit": limit, "store": arguments.store, "smoke": arguments.smoke}
    run_cells(
        parser,
        [partial(run_cell, name, arguments.seed, arguments.out, results, **options) for name in arguments.names],
    )


if __name__ == "__main__":
    main()
