"""Step 2, second part: RAM learns which shapes and characters a scene shows.

Its threshold is low: what it names in vain the detector does not find.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....modeling_lyrics import RamForImageTagging
from ....modeling_lyrics.refiner_images import tagger_view
from ..common.step_trainer import StepArguments, train_step
from ..configs import REFINED_VIEW, TAGS, tagger_config
from ..world.scenes import Scene


def train_tagger(arguments: StepArguments, out: Path) -> None:
    """Train and write RAM."""
    config: Any = tagger_config()
    threshold = float(np.log(config.threshold / (1 - config.threshold)))

    def view(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        shown = {thing.shape for thing in scene.objects} | {thing.character for thing in scene.objects}
        pixels = tagger_view(scene.image, REFINED_VIEW, config.image_mean, config.image_std)
        return {"pixel_values": pixels, "labels": torch.tensor([float(tag in shown) for tag in TAGS])}

    def metrics(prediction: Any) -> dict[str, float]:
        found, shown = prediction.predictions[0] > threshold, prediction.label_ids > 0.5
        right = (found & shown).sum()
        return {"precision": float(right / max(found.sum(), 1)), "recall": float(right / shown.sum())}

    model = train_step(lambda: RamForImageTagging(config), arguments, view, metrics=metrics)
    model.save_pretrained(out)
