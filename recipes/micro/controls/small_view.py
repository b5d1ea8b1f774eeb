"""What the vision encoder's view of 48 x 48 pixels holds: a small network that is taught by labels names what it sees.

The network knows nothing but this view, and where to look: its answers are averaged over the cells of an object. It is
no part of any model.

python -m lyrics.recipes.micro.controls.small_view          # about 20 minutes of one core; run again to resume
python -m lyrics.recipes.micro.controls.small_view --smoke  # a few steps, to check that it runs
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ....utils.atomic_files import write_file
from ..common.run_folders import RunFolders
from ..common.step_trainer import StepArguments, train_step
from ..configs import build_image_processor
from ..refiner.cell_labels import GRID_SIZE, IGNORED, cell_centers, label_cells
from ..world.objects import CHARACTERS, COLORS, SHAPES, SIZES, Box, Scene
from .command_line import add_cell_options, results_folder, run_cells
from .question_sets import DRAWS, OWN, SECOND
from .time_limit import TimeLimit

RECIPE = "controls"  # file of the settings
NAME = "small_view"
NAMES: Mapping[str, tuple[str, ...]] = {
    "color": COLORS,
    "size": SIZES,
    "shape": SHAPES,
    "character": tuple(CHARACTERS),
}
_WIDTH, _LAYERS = 96, 6
_STRIDE = 3  # 48 pixels become 16 cells


class CellNetwork(nn.Module):
    """Convolutions from a view of 48 x 48 pixels to color, size, shape and character of each cell."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _WIDTH, 9, _STRIDE, padding=3)
        self.layers = nn.ModuleList(_Residual() for _ in range(_LAYERS))
        self.head = nn.Conv2d(_WIDTH, sum(map(len, NAMES.values())), 1)

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits of shape (B, names, 16, 16) for each kind of name.

        Args:
            pixel_values: float tensor of shape (B, 3, 48, 48).
        """
        states = self.stem(pixel_values)
        for layer in self.layers:
            states = layer(states)
        logits = self.head(states).split([len(names) for names in NAMES.values()], dim=1)
        return dict(zip(NAMES, logits, strict=True))


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(_WIDTH)
        self.convolution = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states + self.convolution(self.norm(states).relu())


def cells_loss(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Return the sum of the cross-entropies of all four kinds, over the cells that have a name."""
    loss = torch.zeros(())
    for kind, logits in model(batch["pixel_values"]).items():
        named = (batch[kind] != IGNORED).sum().clamp(min=1)
        loss = loss + nn.functional.cross_entropy(logits, batch[kind], ignore_index=IGNORED, reduction="sum") / named
    return loss


def train_network(folders: RunFolders, limit: TimeLimit) -> CellNetwork:
    """Train the network, or resume its training.

    Raises:
        OutOfTimeError: the time was over before the last step.
    """
    see = view_of()
    arguments = StepArguments(**folders.training_settings("view"))
    return train_step(
        CellNetwork,
        arguments,
        lambda scene, random: {"pixel_values": see(scene)} | label_cells(scene),
        loss=cells_loss,
        callbacks=[limit],
    )


def view_of() -> Callable[[Scene], np.ndarray]:
    """Return the function from a scene to what the vision encoder sees of it, float32 of shape (3, 48, 48)."""
    processor = build_image_processor()
    return lambda scene: np.asarray(processor(scene.image)["pixel_values"][0])


@torch.no_grad()
def name_objects(
    model: Callable[[torch.Tensor], Mapping[str, torch.Tensor]], draw: Callable[[int], Scene], numbers: range
) -> dict[str, str]:
    """Return which names of the objects in scenes are right.

    Args:
        model: trained network in evaluation mode, or another function from a view to logits.
        draw: function that draws a scene.
        numbers: numbers of the scenes.

    Returns:
        For each kind of name one character for each object that has one: 1 if its name is right.
    """
    see, bits = view_of(), dict.fromkeys(NAMES, "")
    for number in numbers:
        scene = draw(number)
        logits = model(torch.from_numpy(see(scene))[None])
        for kind, name, cells in _named_areas(scene):
            mean = logits[kind][0][:, torch.from_numpy(cells)].mean(dim=1)
            bits[kind] += str(int(NAMES[kind][int(mean.argmax())] == name))
    return bits


def _named_areas(scene: Scene) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield each name in a scene with its kind and its cells, a bool array of shape (16, 16)."""
    width, height = scene.size
    centers = cell_centers(scene)
    for thing in scene.objects:
        cells = thing.mask[centers]
        if not cells.any():  # between the centers
            row, column = np.argwhere(thing.mask)[thing.area // 2]
            cells[row * GRID_SIZE // height, column * GRID_SIZE // width] = True
        for kind in ("color", "size", "shape"):
            yield kind, getattr(thing, kind), cells
        if thing.character is not None and thing.character_box is not None:
            yield "character", thing.character, _inside(thing.character_box)


def _inside(box: Box) -> np.ndarray:
    """Return which cells have their center in a box, at least the one that holds the box's own center."""
    centers = (np.arange(GRID_SIZE) + 0.5) / GRID_SIZE
    left, top, right, bottom = box
    inside = np.outer((centers > top) & (centers < bottom), (centers > left) & (centers < right))
    if not inside.any():
        inside[int((top + bottom) / 2 * GRID_SIZE), int((left + right) / 2 * GRID_SIZE)] = True
    return inside


def run_small_view(seed: int, out: Path, results: Path, limit: TimeLimit, smoke: bool = False) -> Path:
    """Train and measure the network, or resume it, and return the file of the result. A finished one is not repeated.

    Raises:
        OutOfTimeError: the time was over before the end.
    """
    file = results / f"{NAME}-{seed}.json"
    if file.is_file():
        return file
    folders = RunFolders(out, NAME, seed, smoke, RECIPE)
    model = train_network(folders, limit)
    questions, steps = folders.settings("questions"), folders.training_settings("view")["max_steps"]
    first = questions["first"]
    numbers = range(first, first + 2 * questions["per_kind"])
    named = {world: name_objects(model, DRAWS[world], numbers) for world in (OWN, SECOND)}
    content = {"name": NAME, "seed": seed, "steps": steps, "scenes": len(numbers), "named": named}
    results.mkdir(parents=True, exist_ok=True)
    with write_file(file, "w") as opened:
        json.dump(content, opened, indent=1)
    return file


def read_named(results: Path, seed: int = 0) -> dict[str, dict[str, str]]:
    """Return which names are right, by world and kind, from the file of a result; empty where there is none."""
    file = results / f"{NAME}-{seed}.json"
    return json.loads(file.read_text())["named"] if file.is_file() else {}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m lyrics.recipes.micro.controls.small_view",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_cell_options(parser, "controls")
    arguments = parser.parse_args()
    results = results_folder(arguments, "small_view")
    limit = TimeLimit(arguments.minutes)
    run_cells(parser, [partial(run_small_view, arguments.seed, arguments.out, results, limit, arguments.smoke)])


if __name__ == "__main__":
    main()
