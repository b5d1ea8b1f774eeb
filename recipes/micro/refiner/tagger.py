"""Step 2, second part: train RAM to tag the shapes and characters of a scene.

Its threshold is low, since the detector finds nothing for a wrong tag.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from ....modeling_lyrics import RamForImageTagging
from ....modeling_lyrics.refiner_images import tagger_view
from ..common.run_folders import RunFolders
from ..common.step_trainer import StepArguments, train_step
from ..configs import REFINER_IMAGE_SIZE, TAGS, tagger_config
from ..world.objects import Scene
from ..world.scenes import draw_square


def train_tagger(folders: RunFolders) -> None:
    """Train and write RAM."""
    config: Any = tagger_config()
    threshold = float(np.log(config.threshold / (1 - config.threshold)))

    def make_row(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        shown = {thing.shape for thing in scene.objects} | {thing.character for thing in scene.objects}
        pixels = tagger_view(scene.image, REFINER_IMAGE_SIZE, config.image_mean, config.image_std)
        return {"pixel_values": pixels, "labels": torch.tensor([float(tag in shown) for tag in TAGS])}

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        predicted, shown = prediction.predictions[0] > threshold, np.asarray(prediction.label_ids) > 0.5
        correct = (predicted & shown).sum()
        return {"precision": float(correct / max(predicted.sum(), 1)), "recall": float(correct / shown.sum())}

    arguments = StepArguments(**folders.training_settings("tagger"))
    model = train_step(lambda: RamForImageTagging(config), arguments, make_row, metrics=metrics, draw=draw_square)
    model.save_pretrained(folders.model("tagger"))
