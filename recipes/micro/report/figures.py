"""Figures of what was trained: what the refiner sees, answers, accuracy by number and size of objects, attention.

python -m lyrics.recipes.micro.report.figures --out runs/micro --to docs/figures
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....assets import SCENE_PICTURE
from ....modeling_lyrics import LyricsForConditionalGeneration, attribute_answer
from ....processing_lyrics import LyricsProcessor
from ....processing_lyrics.spatial_text import parse_spatial_text
from ...curves import draw_curves
from ..ablations import VARIANTS
from ..evaluate import KINDS, Case, Outcome, answer_cases, conversation, draw_cases
from ..pipeline.steps import Workshop
from ..world.scenes import SIZES

COMPARED = ("count", "reading", "referring")  # what small things decide
_LOSSES = (0.3, 1, 3)  # that the axis names
_LINES = (("full", "#0072b2", "o-"), ("no_stage1", "#009e73", "^-."), ("no_refiner", "#d55e00", "s--"))


def draw_refiner(checkpoint: Path, out: Path) -> None:
    """The shipped example picture with its objects, as the code in `docs/micro.md` draws it.

    Args:
        checkpoint: a processor with its refiner.
        out: the picture to write.
    """
    processor = LyricsProcessor.from_pretrained(checkpoint)
    objects = processor.refine(SCENE_PICTURE, return_masks=True)[0]
    processor.visualize(SCENE_PICTURE, objects).save(out)


def draw_accuracy(folder: Path, out: Path, seed: int = 0) -> None:
    """Mean accuracy of counting, reading and referring, by number and size of objects, of the models that tell most.

    Args:
        folder: of all models; a model that has not been evaluated is left out.
        out: the picture to write.
        seed: of the models.
    """
    figure, axes = _new_figure(1, 2, (9, 3.4))
    for name, color, style in _LINES:
        path = Workshop(folder, name, seed).own("evaluation") / "results.json"
        if not path.is_file():
            continue
        results = json.loads(path.read_text())
        panels = (("by_objects", "objects in the scene", COMPARED), ("by_size", "size of the object", ("referring",)))
        for panel, (key, title, kinds) in zip(axes[0], panels, strict=True):
            means = {group: _mean(results[key][group], kinds) for group in _groups(results[key])}
            groups = {group: value for group, value in means.items() if value is not None}
            panel.plot(list(groups), list(groups.values()), style, color=color, label=VARIANTS[name].title)
            panel.set(xlabel=title, ylabel=f"right answers, % ({', '.join(kinds)})", ylim=(0, 100))
            panel.legend(fontsize=8, frameon=False)
    _save(figure, out, dpi=110)


def draw_second_stage(folder: Path, out: Path, seed: int = 0) -> None:
    """Losses and right tokens of the second stage, of the models that tell most; evaluations are dots.

    Args:
        folder: of all models; a model whose second stage has not finished is left out.
        out: the picture to write.
        seed: of the models.
    """
    figure, axes = _new_figure(1, 2, (9, 3.4))
    for name, color, _ in _LINES:
        path = Workshop(folder, name, seed).own("stage2") / "trainer_state.json"
        if not path.is_file():
            continue
        log = json.loads(path.read_text())["log_history"]
        for panel, key in zip(axes[0], ("loss", "mean_token_accuracy"), strict=True):
            for prefix, mark, label in (("", "-", VARIANTS[name].title), ("eval_", "o", None)):
                points = [(line["step"], line[prefix + key]) for line in log if prefix + key in line]
                if points:
                    panel.plot(*zip(*points, strict=True), mark, color=color, label=label, markersize=4)
    losses, words = axes[0]
    losses.set(xlabel="step", ylabel="loss", yscale="log", yticks=_LOSSES, yticklabels=_LOSSES)
    losses.yaxis.set_minor_formatter("")
    losses.legend(fontsize=8, frameon=False)
    words.set(xlabel="step", ylabel="right tokens, given those before")
    _save(figure, out, dpi=110)


def draw_answers(checkpoint: Path, out: Path, first: int = 0) -> None:
    """One question of each kind about test scenes, with the answer; answered boxes are drawn, right ones dashed.

    Args:
        checkpoint: model, processor and refiner.
        out: the picture to write.
        first: of the questions of each kind, which are the first of the evaluation and not chosen by their answers.
    """
    model, processor = _load(checkpoint)
    cases = _one_of_each(draw_cases(first + 1), first)
    figure, axes = _new_figure(2, 4, (13, 7.6))
    for panel, outcome in zip(axes.flat, answer_cases(model, processor, cases), strict=True):
        _draw_answer(panel, outcome)
    _save(figure, out, dpi=90)


def _one_of_each(cases: Sequence[Case], index: int) -> list[Case]:
    return [[case for case in cases if case.question.kind == kind][index] for kind in KINDS]


def _draw_answer(panel: Any, outcome: Outcome) -> None:
    question = outcome.case.question
    panel.imshow(outcome.case.scene.image, extent=(0, 1, 1, 0))
    panel.set_axis_off()
    if question.box is not None:
        _draw_box(panel, question.box, "#ffffff" if question.kind == "description" else "#000000", "--")
    if question.kind == "referring":
        for thing in parse_spatial_text(outcome.answer).objects:
            _draw_box(panel, thing.box, "#d55e00", "-")
    mark = "right" if outcome.right else f"wrong: {question.answer}"
    text = "\n".join([*textwrap.wrap(question.text, 38), *textwrap.wrap(f"{outcome.answer} ({mark})", 38)])
    panel.set_title(text, fontsize=10, loc="left")


def _draw_box(panel: Any, box: Sequence[float], color: str, style: str) -> None:
    x1, y1, x2, y2 = box
    panel.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], style, color=color, linewidth=2)


def draw_attention(checkpoint: Path, out: Path, kind: str = "reading", first: int = 0) -> None:
    """Attention of each grounding query over the objects of a scene, and what an answer about it attended to.

    Args:
        checkpoint: model, processor and refiner.
        out: the picture to write.
        kind: of the question.
        first: which of that kind.
    """
    model, processor = _load(checkpoint)
    case = draw_cases(first + 1, kinds=(kind,))[first]
    objects = processor.refine(case.scene.image)[0]
    inputs = processor.apply_chat_template(
        conversation(case),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"visual_objects": [objects]},
    )
    with torch.inference_mode():
        generated = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    answer = processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    why = attribute_answer(model, inputs, generated)
    figure, axes = _new_figure(1, 3, (13, 4.4))
    seen, watched, queries = axes[0]
    seen.imshow(processor.visualize(case.scene.image, objects))
    seen.set_title("what the refiner saw", fontsize=10)
    weights = why.region_weights()[0].tolist()
    watched.imshow(processor.visualize_attention(case.scene.image, objects, weights))
    watched.set_title(f"{case.question.text} {answer}", fontsize=10)
    drawn = queries.imshow(why.query_weights[0].numpy(), aspect="auto", cmap="cividis", vmin=0)
    queries.set_xticks(range(len(objects)), objects.labels, rotation=60, fontsize=8)
    queries.set(ylabel="grounding query", title="attention of the queries over the objects")
    figure.colorbar(drawn, ax=queries)
    for panel in (seen, watched):
        panel.set_axis_off()
    _save(figure, out, dpi=90)


def _load(checkpoint: Path) -> tuple[Any, LyricsProcessor]:
    model: Any = LyricsForConditionalGeneration.from_pretrained(checkpoint)
    return model, LyricsProcessor.from_pretrained(checkpoint)


def _new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, out: Path, dpi: int) -> None:
    """Nothing is cut off, and the same figure makes the same file."""
    figure.savefig(out, dpi=dpi, bbox_inches="tight", metadata={"Software": None})


def _groups(by_group: Mapping[str, Any]) -> list[str]:
    return [size for size in SIZES if size in by_group] or sorted(by_group, key=int)


def _mean(accuracy: Mapping[str, float], kinds: Sequence[str]) -> float | None:
    values = [accuracy[kind] for kind in kinds if kind in accuracy]
    return float(np.mean(values)) if values else None


def main() -> None:
    """Write all figures of a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/micro"), help="folder of all steps")
    parser.add_argument("--to", type=Path, default=Path("docs/figures"), help="folder of the figures")
    parser.add_argument("--seed", type=int, default=0, help="of the models")
    parser.add_argument("--variant", choices=VARIANTS, default="full", help="which model (default: full)")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    shop = Workshop(arguments.out, arguments.variant, arguments.seed)
    model = shop.own("stage2") / "model"
    if shop.variant.stage1:
        draw_curves(shop.own("stage1"), arguments.to / "micro_stage1.png")
    draw_second_stage(arguments.out, arguments.to / "micro_stage2.png", arguments.seed)
    draw_refiner(model, arguments.to / "micro_refiner.png")
    draw_accuracy(arguments.out, arguments.to / "micro_accuracy.png", arguments.seed)
    draw_answers(model, arguments.to / "micro_answers.png")
    draw_attention(model, arguments.to / "micro_attention.png")


if __name__ == "__main__":
    main()
