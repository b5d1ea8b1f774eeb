"""Curves of a training run: its losses and metrics, from `trainer_state.json`. Needs matplotlib.

python -m lyrics.recipes.curves runs/stage1-smoke docs/figures/stage1_smoke.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..utils.training_curves import draw_log


def draw_curves(run: Path, out: Path) -> None:
    """Draw the logged losses and metrics of a run, with one panel for each kind. Evaluations are dots.

    Args:
        run: folder of the run, with `trainer_state.json`.
        out: image file to write.

    Raises:
        ImportError: matplotlib is not installed.
    """
    draw_log(read_log(run), out)


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the log of a run, one mapping for each logged step."""
    return json.loads((run / "trainer_state.json").read_text())["log_history"]


def main() -> None:
    """Draw the curves of the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("out", type=Path, help="image file to write")
    arguments = parser.parse_args()
    draw_curves(arguments.run, arguments.out)


if __name__ == "__main__":
    main()
