"""Step 1: the vision encoder, contrastive (CLIP), on scenes seen small; afterwards it is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers import CLIPModel

from ...processing_lyrics import LyricsImageProcessor
from .common.step_trainer import StepArguments, train_step
from .configs import VIEW, build_micro_bert_tokenizer, clip_config
from .world.questions import caption
from .world.scenes import Scene


def train_vision(arguments: StepArguments, out: Path) -> None:
    """Train CLIP on captions, and write its vision encoder with its image processor."""
    tokenizer: Any = build_micro_bert_tokenizer()
    processor: Any = build_image_processor()

    def view(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        return {"pixel_values": processor(scene.image)["pixel_values"][0], "text": caption(scene, random)}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        texts = tokenizer([row["text"] for row in rows], padding=True, truncation=True, max_length=96)
        pictures = {"pixel_values": [row["pixel_values"] for row in rows]}
        return tokenizer.pad(texts, return_tensors="pt").convert_to_tensors("pt") | _stack(pictures)

    model = train_step(lambda: CLIPModel(clip_config(tokenizer)), arguments, view, collate)
    model.vision_model.save_pretrained(out)
    processor.save_pretrained(out)


def build_image_processor() -> Any:
    """The small view of a scene."""
    return LyricsImageProcessor(size={"height": VIEW, "width": VIEW})


def _stack(pictures: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(np.stack(values)) for name, values in pictures.items()} | {"return_loss": True}
