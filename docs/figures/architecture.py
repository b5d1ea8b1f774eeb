"""Draw how an image and a question become an answer.

python docs/figures/architecture.py docs/figures/architecture.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

DATA, MODEL, FROZEN = "#f3f3f3", "#cfe8f7", "#fbe3c0"
INK = "#222222"
REFINER = ((2.3, 0.8, "RAM", "tags"), (3.75, 1.6, "Grounding DINO", "boxes"), (5.2, 0.8, "SAM", "masks"))


def box(axes: Any, center: tuple[float, float], size: tuple[float, float], title: str, note: str, color: str) -> None:
    """Draw a rounded box with a title and a note."""
    (x, y), (width, height) = center, size
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, "round,pad=0,rounding_size=0.08", fc=color, ec=INK, lw=1))
    axes.text(x, y + (0.13 if note else 0), title, ha="center", va="center", fontsize=11, weight="bold", color=INK)
    axes.text(x, y - 0.19, note, ha="center", va="center", fontsize=9, color=INK)


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], label: str = "", bend: float = 0.0) -> None:
    """Draw an arrow with a label."""
    style = {"arrowstyle": "-|>", "mutation_scale": 11, "lw": 1.2, "color": INK, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **style))
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.1)
    axes.text(*middle, label, ha="center", va="bottom", fontsize=9, color=INK)


def draw(out: Path) -> None:
    """Write the figure."""
    figure, axes = pyplot.subplots(figsize=(11, 4.4), layout="constrained")
    axes.set_xlim(0, 11), axes.set_ylim(0, 4.4)
    axes.axis("off")
    frame = {"fill": False, "ec": "#999999", "lw": 1, "ls": "--"}
    axes.add_patch(Rectangle((1.75, 0.35), 4.0, 1.35, **frame))
    axes.text(1.82, 0.4, "visual refiner, frozen: its output can be stored", fontsize=9, va="bottom", color="#555555")
    box(axes, (0.75, 2.2), (1.1, 0.9), "image", "and question", DATA)
    box(axes, (3.75, 3.3), (2.0, 0.8), "vision encoder", "CLIP ViT, the whole image", FROZEN)
    for x, width, title, note in REFINER:
        box(axes, (x, 1.12), (width, 0.7), title, note, FROZEN)
    box(axes, (7.25, 2.2), (1.7, 1.9), "MQ-Former", "", MODEL)
    axes.text(7.25, 2.85, "visual queries", ha="center", fontsize=9, color=INK)
    axes.text(7.25, 1.5, "grounding queries", ha="center", fontsize=9, color=INK)
    box(axes, (9.75, 2.2), (1.5, 1.0), "language\nmodel", "", MODEL)
    axes.text(9.75, 0.75, "text, with boxes\nwritten as text", ha="center", va="center", fontsize=9, color=INK)
    arrow(axes, (1.3, 2.45), (2.75, 3.3), bend=-0.2)
    arrow(axes, (1.3, 1.95), (1.9, 1.12), bend=0.2)
    arrow(axes, (2.7, 1.12), (2.95, 1.12))
    arrow(axes, (4.55, 1.12), (4.8, 1.12))
    arrow(axes, (4.75, 3.3), (6.4, 2.75), bend=-0.1)
    axes.text(5.75, 3.25, "patches", fontsize=9, color=INK, ha="center", va="center")
    arrow(axes, (5.6, 1.12), (6.4, 1.65), bend=0.15)
    axes.text(6.45, 0.75, "region features,\nlabels and boxes", fontsize=9, color=INK, ha="center", va="center")
    arrow(axes, (1.3, 2.2), (6.4, 2.2), "question (and the objects as text)")
    axes.plot([0.75, 0.75, 9.75], [2.65, 4.0, 4.0], color=INK, lw=1.2)
    arrow(axes, (9.75, 4.0), (9.75, 2.7))
    axes.text(5.25, 4.06, "question", ha="center", va="bottom", fontsize=9, color=INK)
    arrow(axes, (8.1, 2.2), (9.0, 2.2), "projection")
    arrow(axes, (9.75, 1.7), (9.75, 1.05))
    figure.savefig(out, dpi=120, metadata={"Software": None})


def main() -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="PNG file to write")
    mpl.use("agg")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
