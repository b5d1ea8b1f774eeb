"""Draw who may attend to whom in each objective of stage 1, from the tables that the model itself uses.

python docs/figures/attention_tables.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot
from matplotlib.colors import ListedColormap

from lyrics.modeling_lyrics.mqformer_attention_masks import (
    CAPTIONING,
    CONTRASTIVE,
    MATCHING,
    SPATIAL,
    AttentionTable,
    Segment,
)

OUT = Path(__file__).parent / "attention_tables.png"
TABLES = {
    "ITC: contrast": (CONTRASTIVE, "VGSC"),
    "ITM: matching": (MATCHING, "VGSC"),
    "ICG: caption": (CAPTIONING, "VGC"),
    "MSP: masked objects": (SPATIAL, "VGSC"),
}
SIZES = {"V": 3, "G": 4, "S": 5, "C": 5}  # number of positions of each segment in the figure
SEGMENTS = {"V": Segment.VISUAL, "G": Segment.GROUNDING, "S": Segment.SPATIAL, "C": Segment.CAPTION}
COLORS = ListedColormap(["#f1f1f1", "#0072b2", "#e69f00", "#009e73", "#cc79a7"])


def draw(axes: pyplot.Axes, name: str, table: AttentionTable, letters: str) -> None:
    """Draw one table. A row may attend to its colored columns; a color stands for a segment."""
    segments = torch.tensor([SEGMENTS[letter].value for letter in letters for _ in range(SIZES[letter])])[None]
    allowed = table.mask(segments)[0]
    axes.imshow(torch.where(allowed, segments, 0).numpy(), cmap=COLORS, vmin=0, vmax=4)
    edges, middles = [0.0], []
    for letter in letters:
        middles.append(edges[-1] + SIZES[letter] / 2 - 0.5)
        edges.append(edges[-1] + SIZES[letter])
    for edge in edges:
        axes.axhline(edge - 0.5, color="white", linewidth=3)
        axes.axvline(edge - 0.5, color="white", linewidth=3)
    for place in range(len(segments[0])):
        axes.axhline(place - 0.5, color="white", linewidth=0.7)
        axes.axvline(place - 0.5, color="white", linewidth=0.7)
    axes.set_xticks(middles, list(letters))
    axes.set_yticks(middles, list(letters))
    axes.tick_params(length=0, labeltop=True, labelbottom=False, labelsize=11)
    axes.set_title(name, fontsize=12)
    for side in axes.spines.values():
        side.set_visible(False)


def main() -> None:
    """Write the figure."""
    mpl.use("agg")
    figure, every = pyplot.subplots(1, 4, figsize=(12, 3.5), layout="constrained")
    for axes, (name, (table, letters)) in zip(every, TABLES.items(), strict=True):
        draw(axes, name, table, letters)
    every[0].set_ylabel("who attends", fontsize=11)
    legend = (
        "A row may attend to its colored columns.    "
        "V: visual queries    G: grounding queries    S: [BOS] and objects    C: [CLS] and caption"
    )
    figure.supxlabel(legend, fontsize=11)
    figure.savefig(OUT, dpi=110, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
