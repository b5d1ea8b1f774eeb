"""What the steps of the micro model share: endless scenes as rows, and Transformers' own trainer over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, default_collate
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from ..world.scenes import Scene, Split, draw_scene
from .muon import use_muon

View = Callable[[Scene, np.random.Generator], dict[str, Any]]


@dataclass
class StepArguments(TrainingArguments):
    """Transformers' arguments, and how many scenes a step sees."""

    scenes: int = field(default=20000, metadata={"help": "Training scenes; they are drawn on the spot."})
    eval_scenes: int = field(default=256, metadata={"help": "Validation scenes."})
    matrix_learning_rate: float | None = field(
        default=None, metadata={"help": "Of Muon for the weights of linear layers; without it AdamW takes them, too."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Rows hold what collators take."})


class SceneRows(Dataset):
    """Scenes as a model sees them.

    Args:
        split, count: of the scenes.
        view: makes a row of a scene; its draws depend on the scene's number alone.
    """

    def __init__(self, split: Split, count: int, view: View) -> None:
        self.split: Split = split
        self.count, self.view = count, view

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        random = np.random.default_rng((index, 3))
        return self.view(draw_scene(self.split, index), random)


def train_step(
    model: Callable[[], nn.Module],
    arguments: StepArguments,
    view: View,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]] = default_collate,
    loss: Callable[[Any, dict[str, Any]], torch.Tensor] | None = None,
    metrics: Callable[[Any], dict[str, float]] | None = None,
) -> Any:
    """Train a part, or go on from its newest checkpoint.

    Args:
        model: makes it; called after the seed is set.
        arguments: of the run; `output_dir` receives checkpoints and logs.
        view: rows of scenes.
        collate: rows -> a batch.
        loss: (model, batch) -> loss, where the model's own forward does not give it.
        metrics: of the predictions on validation scenes.

    Returns:
        The trained model, in evaluation mode.
    """
    set_seed(arguments.seed)
    built = model()
    trainer = _StepTrainer(
        built,
        arguments,
        collate,
        SceneRows("train", arguments.scenes, view),
        SceneRows("validation", arguments.eval_scenes, view),
        compute_metrics=metrics,
    )
    trainer.own_loss = loss
    if arguments.matrix_learning_rate is not None:
        use_muon(trainer, arguments.matrix_learning_rate)
    trainer.train(resume_from_checkpoint=newest_checkpoint(arguments))
    trainer.evaluate()
    trainer.save_state()
    return built.eval()


def newest_checkpoint(arguments: TrainingArguments) -> str | None:
    """Where an interrupted run goes on; `None` for one that begins."""
    folder = str(arguments.output_dir)
    return get_last_checkpoint(folder) if Path(folder).is_dir() else None


class _StepTrainer(Trainer):
    own_loss: Callable[[Any, dict[str, Any]], torch.Tensor] | None = None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        if self.own_loss is None:
            return super().compute_loss(model, inputs, return_outputs, *args, **kwargs)
        loss = self.own_loss(model, inputs)
        return (loss, {"loss": loss}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        if self.own_loss is None:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.own_loss(model, self._prepare_inputs(inputs)).detach(), None, None
