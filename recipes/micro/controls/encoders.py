"""Vision encoders of the arms without a refiner, each with a first stage of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, CLIPConfig, CLIPModel, TrainerCallback

from ....processing_lyrics import LyricsImageProcessor, LyricsProcessor
from ....trainers import LyricsPretrainingTrainer
from ..common.muon import use_muon
from ..common.run_folders import RunFolders
from ..common.step_trainer import StepArguments, run_trainer, train_step
from ..configs import REFINER_IMAGE_SIZE, build_image_processor, build_micro_bert_tokenizer, clip_config
from ..refiner.cell_labels import GRID_SIZE, IGNORED, label_cells, locate_cells
from ..train_stages import build_first_stage
from ..world.datasets import CaptionRows
from ..world.objects import CHARACTERS, COLORS, SHAPES, SIZES, Scene
from ..world.questions import caption
from .segmenter_grid import build_segmenter_grid

_PATCH_SIZE = REFINER_IMAGE_SIZE // GRID_SIZE  # a patch is a cell of the refiner's dense labels
_LAYERS = 5  # as the encoder that ships
_DENSE_LAYERS = 9  # by which the encoder spends about as many FLOP on a picture as the refiner
_HEADS: Mapping[str, int] = {
    "color": len(COLORS),
    "size": len(SIZES),
    "shape": len(SHAPES) + 1,  # the last class is a cell without an object
    "character": len(CHARACTERS) + 1,
}
_EMPTY_WEIGHT = 0.15  # of cells without an object or a character, as in the training of the refiner's backbone
_USED_STATE = -2  # hidden state that a model takes of CLIP


def train_encoder(folders: RunFolders, callbacks: Sequence[TrainerCallback] = ()) -> None:
    """Train and write the vision encoder that the folders are named after, with its image processor.

    Raises:
        OutOfTimeError: a callback stopped the training before its last step.
    """
    ENCODERS[folders.name](folders, callbacks)


def _train_on_captions(folders: RunFolders, callbacks: Sequence[TrainerCallback], dense: bool = False) -> None:
    """Train CLIP at 128 pixels, on captions alone or on the labels of every cell, too."""
    tokenizer, processor = build_micro_bert_tokenizer(), build_image_processor(REFINER_IMAGE_SIZE)
    layers = _DENSE_LAYERS if dense else _LAYERS
    sizes = {"image_size": REFINER_IMAGE_SIZE, "patch_size": _PATCH_SIZE, "num_hidden_layers": layers}

    def make_row(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        row = {"pixel_values": processor(scene.image)["pixel_values"][0], "text": caption(scene, random)}
        return row | label_cells(scene) | {"boxes": locate_cells(scene)} if dense else row

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        texts = tokenizer([row.pop("text") for row in rows], padding=True, truncation=True, max_length=96)
        return {**tokenizer.pad(texts, return_tensors="pt"), **default_collate(rows), "return_loss": True}

    arguments = StepArguments(**folders.training_settings("encoder"))
    model = train_step(
        lambda: (_DenseClip if dense else CLIPModel)(clip_config(tokenizer, **sizes)),
        arguments,
        make_row,
        collate,
        _dense_loss if dense else None,
        callbacks=callbacks,
    )
    model.vision_model.save_pretrained(folders.model("encoder"))
    processor.save_pretrained(folders.model("encoder"))


class _DenseClip(CLIPModel):
    """CLIP with heads that tell color, size, shape, character and box of what each patch shows."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__(config)
        vision_config: Any = config.vision_config
        width = vision_config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in _HEADS.items()})
        self.boxes = nn.Linear(width, 4)
        self.post_init()


def _dense_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return the contrastive loss, plus the cross-entropies and the box error of all cells."""
    labels = {name: batch[name] for name in (*_HEADS, "boxes")}
    inputs = {name: value for name, value in batch.items() if name not in labels}
    output = model(**inputs, output_hidden_states=True)
    cells = output.vision_model_output.hidden_states[_USED_STATE][:, 1:]  # (B, 256, D), without the class token
    loss = output.loss
    for name, count in _HEADS.items():
        has_empty_class = name in ("shape", "character")
        wanted = labels[name].flatten()
        weight = torch.ones(count, device=cells.device)
        if has_empty_class:
            wanted, weight[-1] = torch.where(wanted == IGNORED, count - 1, wanted), _EMPTY_WEIGHT
        if (wanted != IGNORED).any():
            logits = model.heads[name](cells).flatten(0, 1)
            loss = loss + nn.functional.cross_entropy(logits, wanted, weight, ignore_index=IGNORED)
    boxes = labels["boxes"].flatten(1, 2)  # (B, 256, 4)
    known = ~boxes.isnan().any(dim=-1)
    if known.any():
        loss = loss + 5 * nn.functional.l1_loss(model.boxes(cells[known]).sigmoid(), boxes[known])
    return loss


def _train_dense(folders: RunFolders, callbacks: Sequence[TrainerCallback]) -> None:
    _train_on_captions(folders, callbacks, dense=True)


def _take_segmenter(folders: RunFolders, callbacks: Sequence[TrainerCallback]) -> None:
    """Write the encoder of the refiner's segmenter, which is not trained further."""
    refiner: Any = LyricsProcessor.from_pretrained(folders.folder("refiner")).refiner
    grid, side = build_segmenter_grid(refiner.segmenter), REFINER_IMAGE_SIZE
    settings: Any = {"image_mean": refiner.config.image_mean, "image_std": refiner.config.image_std}
    processor: Any = LyricsImageProcessor(size={"height": side, "width": side}, **settings)
    grid.save_pretrained(folders.model("encoder"))
    processor.save_pretrained(folders.model("encoder"))


ENCODERS: Mapping[str, Callable[[RunFolders, Sequence[TrainerCallback]], None]] = {
    "captions_128": _train_on_captions,
    "dense_128": _train_dense,
    "segmenter_grid": _take_segmenter,
}


def train_first_stage(folders: RunFolders, callbacks: Sequence[TrainerCallback] = ()) -> None:
    """Train and write the first stage of a new encoder: visual queries only, as many as the model that ships has.

    Raises:
        OutOfTimeError: a callback stopped the training before its last step.
    """
    settings = folders.training_settings("stage1") | {"msp_weight": 0.0}
    matrix_learning_rate, scenes = settings.pop("matrix_learning_rate"), folders.settings("captions")
    model, processor, training = build_first_stage(
        settings, folders.model("encoder"), folders.folder("refiner"), grounding=False
    )
    rows = CaptionRows("train", scenes["scenes"], scenes["first"])
    trainer = LyricsPretrainingTrainer(model, training, rows, None, processor, callbacks=list(callbacks))
    use_muon(trainer, matrix_learning_rate)
    run_trainer(trainer, evaluate=False)
    trainer.save_model(str(folders.model("stage1")))


def count_flop(folders: RunFolders) -> dict[str, float]:
    """Return how many million FLOP encoder and refiner spend on a square picture, by PyTorch's counter.

    Attention is computed without fused kernels, which the counter does not know.
    """
    encoder: Any = AutoModel.from_pretrained(folders.model("encoder"), attn_implementation="eager")
    processor = LyricsProcessor.from_pretrained(folders.folder("refiner"))
    refiner: Any = processor.refiner
    refiner.set_attn_implementation("eager")
    scene = CaptionRows("train", 1)[0]["image"].resize((REFINER_IMAGE_SIZE, REFINER_IMAGE_SIZE))
    pixels = torch.zeros(1, 3, REFINER_IMAGE_SIZE, REFINER_IMAGE_SIZE)
    runs: Mapping[str, Callable[[], Any]] = {
        "encoder": lambda: encoder(pixels),
        "refiner": lambda: refiner.refine([scene]),
    }
    counted = {}
    for name, run in runs.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        counted[name] = round(counter.get_total_flops() / 1e6, 1)
    return counted
