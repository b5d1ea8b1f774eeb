"""Draws the losses and metrics of training runs from their `trainer_state.json`.

python docs/figures/learning_curves.py runs/stage1-smoke docs/figures/stage1_smoke.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

PANELS = {
    "losses": ("loss_itc", "loss_itm", "loss_icg", "loss_msp", "loss"),
    "retrieval and matching": ("recall_image_to_text", "recall_text_to_image", "matching_accuracy"),
    "words": (
        "caption_accuracy",
        "masked_label_accuracy",
        "masked_coordinate_accuracy",
        "mean_token_accuracy",
    ),
}
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#000000")


def draw(run: Path, out: Path) -> None:
    """One panel for each kind of number that the run has logged; evaluations are dots."""
    log = json.loads((run / "trainer_state.json").read_text())["log_history"]
    logged = {name for line in log for name in line}
    panels = {title: [name for name in names if name in logged] for title, names in PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    figure, every = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3.2), layout="constrained", squeeze=False)
    for axes, (title, names) in zip(every[0], panels.items(), strict=True):
        for name, color in zip(names, COLORS, strict=False):
            for prefix, style in (("", "-"), ("eval_", "o")):
                points = [(line["step"], line[prefix + name]) for line in log if prefix + name in line]
                label = name if not prefix else None
                axes.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4) if points else None
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("step")
        axes.legend(fontsize=7, frameon=False)
    figure.savefig(out, dpi=110, metadata={"Software": None})


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("out", type=Path, help="the picture to write")
    arguments = parser.parse_args()
    mpl.use("agg")
    draw(arguments.run, arguments.out)


if __name__ == "__main__":
    main()
