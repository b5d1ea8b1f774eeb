"""Training of a part of the model on endless scenes with Transformers' own trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, default_collate
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from ..world.objects import Scene, Split
from ..world.scenes import draw_scene
from .muon import use_muon

DrawScene = Callable[[Split, int], Scene]
MakeRow = Callable[[Scene, np.random.Generator], dict[str, Any]]
Loss = Callable[[Any, dict[str, Any]], torch.Tensor]


@dataclass
class StepArguments(TrainingArguments):
    """Transformers' training arguments with the number of scenes and the learning rate of Muon."""

    scenes: int = field(default=20000, metadata={"help": "Number of training scenes, drawn on the fly."})
    eval_scenes: int = field(default=256, metadata={"help": "Number of validation scenes."})
    matrix_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of Muon for the weights of linear layers (default: AdamW trains them too)."},
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Whether columns unknown to forward go."})


@dataclass(eq=False)
class SceneRows(Dataset):
    """Data set with a row for each scene.

    Args:
        split: split of the scenes.
        count: number of scenes.
        make_row: function from a scene and a random number generator to a row. The generator depends on the number of
            the scene only.
        draw: function that draws a scene.
    """

    split: Split
    count: int
    make_row: MakeRow
    draw: DrawScene = draw_scene

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        random = np.random.default_rng((index, 3))
        return self.make_row(self.draw(self.split, index), random)


def train_step(
    build_model: Callable[[], nn.Module],
    arguments: StepArguments,
    make_row: MakeRow,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]] = default_collate,
    loss: Loss | None = None,
    metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
    draw: DrawScene = draw_scene,
    callbacks: Sequence[TrainerCallback] = (),
) -> Any:
    """Train a model, or resume from its newest checkpoint.

    Args:
        build_model: function that returns the untrained model. It is called after the seed is set.
        arguments: training arguments. `output_dir` receives checkpoints and logs.
        make_row: function from a scene to a row, as in `SceneRows`.
        collate: function from rows to a batch.
        loss: function from model and batch to the loss. By default the model's forward returns it.
        metrics: function from the predictions on validation scenes to metrics.
        draw: function that draws a scene.
        callbacks: further callbacks of the trainer.

    Returns:
        The trained model in evaluation mode.

    Raises:
        OutOfTimeError: a callback stopped the training before its last step.
    """
    set_seed(arguments.seed)
    model = build_model()
    train_rows = SceneRows("train", arguments.scenes, make_row, draw)
    eval_rows = SceneRows("validation", arguments.eval_scenes, make_row, draw)
    trainer = _StepTrainer(
        model, arguments, collate, train_rows, eval_rows, compute_metrics=metrics, callbacks=list(callbacks)
    )
    trainer.loss = loss
    if arguments.matrix_learning_rate is not None:
        use_muon(trainer, arguments.matrix_learning_rate)
    run_trainer(trainer)
    return model.eval()


class OutOfTimeError(RuntimeError):
    """Raised where a training stopped before its last step. Its checkpoint is complete, so that it can be resumed."""


def run_trainer(trainer: Trainer, evaluate: bool = True) -> None:
    """Train from the newest checkpoint, if there is one, evaluate if asked to, and write the log.

    Raises:
        OutOfTimeError: a callback stopped the training before its last step.
    """
    folder = str(trainer.args.output_dir)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if Path(folder).is_dir() else None)
    state = trainer.state
    if state.global_step < state.max_steps:
        raise OutOfTimeError(f"{folder} stopped at step {state.global_step} of {state.max_steps}. Run it again.")
    if evaluate:
        trainer.evaluate()
    trainer.save_state()


class _StepTrainer(Trainer):
    """Trainer that can compute the loss outside of the model."""

    loss: Loss | None = None

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(model, inputs, *args, **kwargs) if self.loss is None else self.loss(model, inputs)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self.loss is None:
            return super().prediction_step(model, inputs, *args, **kwargs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.loss(model, self._prepare_inputs(inputs)).detach(), None, None
