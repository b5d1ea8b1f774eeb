"""Step 1: train the vision encoder with CLIP's contrastive loss on small images of scenes. It is frozen afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import default_collate
from transformers import CLIPModel

from .common.run_folders import RunFolders
from .common.step_trainer import StepArguments, train_step
from .configs import build_image_processor, build_micro_bert_tokenizer, clip_config
from .world.objects import Scene
from .world.questions import caption


def train_vision(folders: RunFolders) -> None:
    """Train CLIP on captions, and write its vision encoder with the image processor."""
    tokenizer, processor = build_micro_bert_tokenizer(), build_image_processor()

    def make_row(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        return {"pixel_values": processor(scene.image)["pixel_values"][0], "text": caption(scene, random)}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        texts = tokenizer([row["text"] for row in rows], padding=True, truncation=True, max_length=96)
        pixels = default_collate([row["pixel_values"] for row in rows])
        return {**tokenizer.pad(texts, return_tensors="pt"), "pixel_values": pixels, "return_loss": True}

    arguments = StepArguments(**folders.training_settings("vision"))
    model = train_step(lambda: CLIPModel(clip_config(tokenizer)), arguments, make_row, collate)
    model.vision_model.save_pretrained(folders.model("vision"))
    processor.save_pretrained(folders.model("vision"))
