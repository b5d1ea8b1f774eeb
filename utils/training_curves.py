"""Curves of a training run: its losses and metrics by step. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "losses": ("loss_itc", "loss_itm", "loss_icg", "loss_msp", "loss"),
    "tags": ("precision", "recall"),
    "retrieval and matching": ("recall_image_to_text", "recall_text_to_image", "matching_accuracy"),
    "words": ("caption_accuracy", "masked_label_accuracy", "masked_coordinate_accuracy", "mean_token_accuracy"),
}
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#000000")


def draw_log(log: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Draw the logged losses and metrics of a run, with one panel for each kind. Evaluations are dots.

    Args:
        log: sequence of one mapping for each logged step.
        out: image file to write.

    Raises:
        ImportError: matplotlib is not installed.
    """
    logged = {name.removeprefix("eval_") for line in log for name in line}
    panels = {title: [name for name in names if name in logged] for title, names in PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    figure, grid = new_figure(1, len(panels), (4 * len(panels), 3.2))
    for axes, (title, names) in zip(grid[0], panels.items(), strict=True):
        for name, color in zip(names, COLORS, strict=False):
            plot_metric(axes, log, name, color, name)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("step")
        axes.legend(fontsize=7, frameon=False)
    figure.savefig(out, dpi=110, metadata={"Software": None})


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    """Return a figure without a window, and its axes, an array of shape (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def plot_metric(axes: Axes, log: Sequence[Mapping[str, Any]], name: str, color: str, label: str) -> None:
    """Plot a metric over the steps: a line of training values, and a dot for each evaluation."""
    for key, style in ((name, "-"), (f"eval_{name}", "o")):
        if points := [(line["step"], line[key]) for line in log if key in line]:
            axes.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4)
            label = "_"  # an underscore keeps the dots out of the legend
