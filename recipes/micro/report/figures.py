"""Figures of trained models: detections, answers, attention, learning curves, and accuracy by objects of a scene.

python -m lyrics.recipes.micro.report.figures --out runs/micro --to docs/figures
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ....assets import SCENE_PICTURE
from ....modeling_lyrics import LyricsForConditionalGeneration, attribute_answer
from ....processing_lyrics import LyricsProcessor
from ....processing_lyrics.spatial_text import parse_spatial_text
from ....utils.training_curves import new_figure, plot_metric
from ...curves import draw_curves, read_log
from ..ablations import VARIANTS
from ..common.run_folders import RunFolders, add_model_options
from ..evaluate import answer_cases, encode_cases
from ..world.cases import KINDS, Outcome, draw_cases
from ..world.objects import SIZES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPARED = ("count", "reading", "referring")  # kinds of questions that need small objects
_LOSS_TICKS = (0.3, 1, 3)
_MODELS = (("full", "#0072b2", "o-"), ("no_stage1", "#009e73", "^-."), ("no_refiner", "#d55e00", "s--"))


def draw_refiner(checkpoint: Path, out: Path) -> None:
    """Draw the shipped scene with its detected objects, as the code in `docs/micro.md` does.

    Args:
        checkpoint: folder of a processor with its refiner.
        out: image file to write.
    """
    processor = LyricsProcessor.from_pretrained(checkpoint)
    objects = processor.refine(SCENE_PICTURE, return_masks=True)[0]
    processor.visualize(SCENE_PICTURE, objects).save(out)


def draw_accuracy(folder: Path, out: Path, seed: int = 0) -> None:
    """Plot the accuracy of selected models by number and by size of objects.

    Args:
        folder: folder of all models. A model without results is left out.
        out: image file to write.
        seed: seed of the models.
    """
    figure, grid = new_figure(1, 2, (9, 3.4))
    panels = (("by_objects", "objects in the scene", COMPARED), ("by_size", "size of the object", ("referring",)))
    for title, color, style, run in _runs(folder, seed, "evaluation", "results.json"):
        results = json.loads((run / "results.json").read_text())
        for axes, (key, label, kinds) in zip(grid[0], panels, strict=True):
            groups = [size for size in SIZES if size in results[key]] or sorted(results[key], key=int)
            means = {group: _mean(results[key][group], kinds) for group in groups}
            means = {group: mean for group, mean in means.items() if mean is not None}
            axes.plot(list(means), list(means.values()), style, color=color, label=title)
            axes.set(xlabel=label, ylabel=f"right answers, % ({', '.join(kinds)})", ylim=(0, 100))
            axes.legend(fontsize=8, frameon=False)
    _save(figure, out, dpi=110)


def _runs(folder: Path, seed: int, step: str, file: str) -> Iterator[tuple[str, str, str, Path]]:
    """Yield title, color, line style and folder of each model whose step has written a file."""
    for name, color, style in _MODELS:
        run = RunFolders(folder, name, seed).folder(step)
        if (run / file).is_file():
            yield VARIANTS[name].title, color, style, run


def _mean(accuracy: Mapping[str, float], kinds: Sequence[str]) -> float | None:
    """Return the mean over the kinds that were asked, or `None` if there is none."""
    values = [accuracy[kind] for kind in kinds if kind in accuracy]
    return float(np.mean(values)) if values else None


def draw_second_stage(folder: Path, out: Path, seed: int = 0) -> None:
    """Plot loss and token accuracy of selected models over the second stage. Evaluations are dots.

    Args:
        folder: folder of all models. A model without a second stage is left out.
        out: image file to write.
        seed: seed of the models.
    """
    figure, grid = new_figure(1, 2, (9, 3.4))
    losses, accuracies = grid[0]
    for title, color, _, run in _runs(folder, seed, "stage2", "trainer_state.json"):
        log = read_log(run)
        plot_metric(losses, log, "loss", color, title)
        plot_metric(accuracies, log, "mean_token_accuracy", color, title)
    losses.set(xlabel="step", ylabel="loss", yscale="log", yticks=_LOSS_TICKS, yticklabels=_LOSS_TICKS)
    losses.yaxis.set_minor_formatter("")
    losses.legend(fontsize=8, frameon=False)
    accuracies.set(xlabel="step", ylabel="right tokens, given those before")
    _save(figure, out, dpi=110)


def draw_answers(checkpoint: Path, out: Path) -> None:
    """Draw the first test question of each kind with its answer. Answered boxes are solid, true boxes dashed.

    Args:
        checkpoint: folder of model, processor and refiner.
        out: image file to write.
    """
    model, processor = _load(checkpoint)
    cases = sorted(draw_cases(1), key=lambda case: KINDS.index(case.question.kind))
    figure, grid = new_figure(3, 4, (13, 11.4))
    for axes, outcome in zip(grid.flat, answer_cases(model, processor, cases), strict=True):
        _draw_answer(axes, outcome)
    _save(figure, out, dpi=90)


def _draw_answer(axes: Axes, outcome: Outcome) -> None:
    """Draw a scene with the boxes of question and answer, and with their texts as its title."""
    question = outcome.case.question
    width, height = outcome.case.scene.size
    axes.imshow(np.asarray(outcome.case.scene.image), extent=(0, 1, 1, 0), aspect=height / width)
    axes.set_axis_off()
    if question.box is not None:
        _draw_box(axes, question.box, "#ffffff" if question.kind == "description" else "#000000", "--")
    if question.wants_box:
        for thing in parse_spatial_text(outcome.answer).objects:
            _draw_box(axes, thing.box, "#d55e00", "-")
    mark = "right" if outcome.correct else f"wrong: {question.answer}"
    asked = " ".join([*(one.text for one in question.before), question.text])
    text = "\n".join([*textwrap.wrap(asked, 38), *textwrap.wrap(f"{outcome.answer} ({mark})", 38)])
    axes.set_title(text, fontsize=10, loc="left")


def _draw_box(axes: Axes, box: Sequence[float], color: str, style: str) -> None:
    x1, y1, x2, y2 = box
    axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], style, color=color, linewidth=2)


def draw_attention(checkpoint: Path, out: Path) -> None:
    """Draw the attention behind the answer to the first test question about a character.

    The figure shows the detected objects, the attention of the answer to them, and that of each grounding query.

    Args:
        checkpoint: folder of model, processor and refiner.
        out: image file to write.
    """
    model, processor = _load(checkpoint)
    case = draw_cases(1, kinds=("reading",))[0]
    image = case.scene.image
    objects = processor.refine(image)[0]
    inputs = encode_cases(processor, [case], [objects])
    with torch.inference_mode():
        generated = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    answer = processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    attribution = attribute_answer(model, inputs, generated)
    figure, grid = new_figure(1, 3, (13, 4.4))
    detected, attended, queries = grid[0]
    detected.imshow(processor.visualize(image, objects))
    detected.set_title("what the refiner saw", fontsize=10)
    attended.imshow(processor.visualize_attention(image, objects, attribution.region_weights()[0].tolist()))
    attended.set_title(f"{case.question.text} {answer}", fontsize=10)
    for axes in (detected, attended):
        axes.set_axis_off()
    weights = queries.imshow(attribution.query_weights[0].numpy(), aspect="auto", cmap="cividis", vmin=0)
    queries.set_xticks(range(len(objects)), objects.labels, rotation=60, fontsize=8)
    queries.set(ylabel="grounding query", title="attention of the queries over the objects")
    figure.colorbar(weights, ax=queries)
    _save(figure, out, dpi=90)


def _load(checkpoint: Path) -> tuple[Any, LyricsProcessor]:
    model = LyricsForConditionalGeneration.from_pretrained(checkpoint)
    return model, LyricsProcessor.from_pretrained(checkpoint)


def _save(figure: Figure, out: Path, dpi: int) -> None:
    """Save a figure without clipping. Equal figures give equal files."""
    figure.savefig(out, dpi=dpi, bbox_inches="tight", metadata={"Software": None})


def main() -> None:
    """Write all figures of a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--to", type=Path, default=Path("docs/figures"), help="folder of the figures")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    folders = RunFolders(arguments.out, arguments.variant, arguments.seed)
    if folders.variant.stage1:
        draw_curves(folders.folder("stage1"), arguments.to / "micro_stage1.png")
    draw_second_stage(arguments.out, arguments.to / "micro_stage2.png", arguments.seed)
    draw_accuracy(arguments.out, arguments.to / "micro_accuracy.png", arguments.seed)
    model = folders.model("stage2")
    draw_refiner(model, arguments.to / "micro_refiner.png")
    draw_answers(model, arguments.to / "micro_answers.png")
    draw_attention(model, arguments.to / "micro_attention.png")


if __name__ == "__main__":
    main()
