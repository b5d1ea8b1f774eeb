"""LoRA tuning of the composed model on dialogues about scenes of the micro world, in SmolLM2's own template."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import TrainerCallback, set_seed

from ...conversion import merge_adapter
from ...processing_lyrics import LyricsProcessor, VisualObjects
from ...trainers.sft_config import LyricsSFTConfig
from ...trainers.sft_trainer import LyricsSFTTrainer
from ...utils.model_folder import write_model
from ..micro.common.step_trainer import run_trainer
from ..micro.evaluate import answer_cases
from ..micro.world.cases import Case, accuracies, draw_cases
from ..micro.world.datasets import DialogueRows
from ..micro.world.scenes import draw_scene

LOOKUPS = ("color", "shape", "size", "reading")  # kinds of questions that are trained


class NoObjects:
    """Store in which every image is without objects: what a model knows then, it has from the whole view."""

    def lookup(self, picture: Image.Image) -> VisualObjects:
        """Return no objects."""
        return VisualObjects()


class RefinedDialogues(torch.utils.data.Dataset):
    """Dialogues with the objects of their scenes; each scene is refined once, when its first dialogue is read.

    Args:
        rows: dialogues.
        processor: processor with a refiner.
        rehearsal: rows without images, one of which takes the place of every n-th dialogue.
        every: n.
    """

    def __init__(
        self, rows: DialogueRows, processor: LyricsProcessor, rehearsal: Sequence[dict[str, Any]] = (), every: int = 4
    ) -> None:
        self.rows, self.processor, self.rehearsal, self.every = rows, processor, rehearsal, every
        self._objects: dict[str, VisualObjects] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.rehearsal and index % self.every == self.every - 1:
            return self.rehearsal[index // self.every % len(self.rehearsal)] | {"images": [], "visual_objects": []}
        row = self.rows[index]
        if row["key"] not in self._objects:
            self._objects[row["key"]] = self.processor.refine(row["image"], progress=False)[0]
        return {
            "messages": row["messages"],
            "images": [row["image"]],
            "visual_objects": [self._objects[row["key"]]],
        }


@dataclass
class Curve(TrainerCallback):
    """Answers a few questions about validation scenes while a model is trained, and ends the run when its time is up.

    The time of an interrupted run counts up to its last result.

    Attributes:
        processor: processor of the model.
        path: file of JSON lines, to which each result is appended.
        every: number of steps between two results.
        per_kind: number of questions of each kind.
        minutes: longest time of the run, all tries together.
    """

    processor: LyricsProcessor
    path: Path
    every: int
    per_kind: int
    minutes: float

    def __post_init__(self) -> None:
        earlier = self.path.read_text().splitlines() if self.path.is_file() else []
        self._start = time.monotonic() - 60 * (json.loads(earlier[-1])["minutes"] if earlier else 0)

    @cached_property
    def _cases(self) -> list[Case]:
        return draw_cases(self.per_kind, draw=partial(draw_scene, "validation"), kinds=LOOKUPS)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> Any:
        """Write a point of the curve, and stop in time."""
        minutes = (time.monotonic() - self._start) / 60
        if minutes > self.minutes:
            control.should_training_stop = control.should_save = True
        if state.global_step % self.every == 0 or control.should_training_stop:
            found = evaluate(model, self.processor, self._cases)
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, "minutes": round(minutes, 1), **found}) + "\n")
        return control


def evaluate(model: Any, processor: LyricsProcessor, cases: list[Case], batch_size: int = 16) -> dict[str, float]:
    """Return the percentages of right answers by kind, in evaluation mode."""
    was_training = model.training
    model.eval()
    found = accuracies(answer_cases(model, processor, cases, batch_size=batch_size))
    model.train(was_training)
    return found


def train(
    composed: Path,
    out: Path,
    settings: dict[str, Any],
    rehearsal: Sequence[dict[str, Any]] = (),
    objects: bool = True,
    seed: int = 0,
) -> None:
    """Train the composed model, and write its adapter and the merged model.

    Args:
        composed: folder of the composed model.
        out: folder of the run: checkpoints, `curve.jsonl`, `adapter` and `merged`.
        settings: mapping of the recipe.
        rehearsal: rows of `read_rehearsal`.
        objects: whether the model sees the refiner's objects, in the questions of the curve too.
        seed: random seed.
    """
    arguments = LyricsSFTConfig(str(out / "run"), seed=seed, **settings["training"])
    set_seed(arguments.seed)
    processor = LyricsProcessor.from_pretrained(composed)
    processor.store = None if objects else NoObjects()
    scenes = settings["rows"]
    dialogues = DialogueRows("train", scenes["scenes"], scenes["first"], scenes["dialogues"])
    dialogues.lookups = len(dialogues)
    curve = Curve(processor, out / "curve.jsonl", minutes=settings["minutes"], **settings["curve"])
    trainer = LyricsSFTTrainer(
        str(composed),
        arguments,
        RefinedDialogues(dialogues, processor, rehearsal, settings["rehearsal"]),
        processing_class=processor,
        callbacks=[curve],
    )
    run_trainer(trainer, evaluate=False)
    trainer.save_model(str(out / "adapter"))
    model, merged_processor = merge_adapter(out / "adapter")
    with write_model(out / "merged") as folder:
        model.save_pretrained(folder)
        merged_processor.save_pretrained(folder)
