"""Draws the losses and metrics of a training run from its `trainer_state.json`; needs matplotlib.

python -m lyrics.recipes.curves runs/stage1-smoke docs/figures/stage1_smoke.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

PANELS = {
    "losses": ("loss_itc", "loss_itm", "loss_icg", "loss_msp", "loss"),
    "tags": ("precision", "recall"),
    "retrieval and matching": ("recall_image_to_text", "recall_text_to_image", "matching_accuracy"),
    "words": (
        "caption_accuracy",
        "masked_label_accuracy",
        "masked_coordinate_accuracy",
        "mean_token_accuracy",
    ),
}
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#000000")


def draw_curves(run: Path, out: Path) -> None:
    """One panel for each kind of number that the run has logged; evaluations are dots.

    Args:
        run: the folder of a run, with `trainer_state.json`.
        out: the picture to write.

    Raises:
        ImportError: without matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    log = json.loads((run / "trainer_state.json").read_text())["log_history"]
    logged = {name.removeprefix("eval_") for line in log for name in line}
    panels = {title: [name for name in names if name in logged] for title, names in PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(1, len(panels), squeeze=False)
    for axes, (title, names) in zip(every[0], panels.items(), strict=True):
        for name, color in zip(names, COLORS, strict=False):
            for prefix, style in (("", "-"), ("eval_", "o")):
                points = [(line["step"], line[prefix + name]) for line in log if prefix + name in line]
                if points:
                    label = None if prefix and any(name in line for line in log) else name
                    axes.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4)
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
    draw_curves(arguments.run, arguments.out)


if __name__ == "__main__":
    main()
