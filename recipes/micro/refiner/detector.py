"""Step 2, third part: train MM-Grounding-DINO to detect shapes and characters.

With set matching alone, a detector of this size learns nothing in thousands of steps. A dense loss is added: every
encoder proposal near the center of an object learns the phrase and the box of that object.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import MMGroundingDinoForObjectDetection, ResNetBackbone
from transformers.image_transforms import center_to_corners_format
from transformers.loss.loss_for_object_detection import generalized_box_iou

from ....modeling_lyrics import LyricsRefinerConfig
from ....modeling_lyrics.refiner_detection import make_mask_additive
from ....modeling_lyrics.refiner_images import detector_view
from ..common.run_folders import RunFolders
from ..common.step_trainer import StepArguments, train_step
from ..configs import REFINER_IMAGE_SIZE, TAGS, build_detector_tokenizer, detector_config
from ..world.objects import Scene
from ..world.scenes import draw_square

TAG_SEPARATOR = ". "  # by which the loss in Transformers separates the phrases of a prompt
_MIN_TAGS = 8  # of a prompt
_DENSE_WEIGHT = 1.0
_STRIDES = (8, 16, 32, 64)  # of the encoder's proposals, in pixels
_CENTER_SHARE = 0.25  # largest distance of a proposal from an object's center, in shares of the object's sides
_INITIAL_LOGIT = -4.0  # so that nothing is detected before something is learned


def train_detector(folders: RunFolders) -> None:
    """Train and write MM-Grounding-DINO with its tokenizer."""
    tokenizer = build_detector_tokenizer()

    def build_model() -> Any:
        model: Any = MMGroundingDinoForObjectDetection(detector_config(tokenizer))
        encoder = ResNetBackbone.from_pretrained(folders.model("backbone"))
        model.model.backbone.conv_encoder.model.load_state_dict(encoder.state_dict())
        for name, parameter in model.named_parameters():
            if name.endswith(("class_embed.0.bias", "output_class_embed.bias")):
                nn.init.constant_(parameter, _INITIAL_LOGIT)
        model.model.text_backbone.register_forward_pre_hook(make_mask_additive, with_kwargs=True)
        return model

    def make_row(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        order = random.permutation(len(TAGS))
        return {"pixel_values": detector_pixels(scene), "targets": visible_tags(scene), "order": order}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Use one prompt for all scenes of a batch, with a random choice of tags, and drop targets without a tag."""
        order = rows[0]["order"]
        random = np.random.default_rng(order)
        tags = [TAGS[index] for index in order[: random.integers(_MIN_TAGS, len(TAGS) + 1)]]
        text = tokenizer([TAG_SEPARATOR.join(tags).lower() + "."] * len(rows), return_tensors="pt")
        labels = []
        for row in rows:
            targets = [(tags.index(tag), box) for tag, box in row["targets"] if tag in tags]
            boxes = torch.tensor([box for _, box in targets], dtype=torch.float32).view(-1, 4)
            boxes = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
            labels.append({"class_labels": torch.tensor([tag for tag, _ in targets], dtype=torch.long), "boxes": boxes})
        return {**text, "pixel_values": torch.stack([row["pixel_values"] for row in rows]), "labels": labels}

    arguments = StepArguments(**folders.training_settings("detector"))
    model = train_step(build_model, arguments, make_row, collate, loss=_loss, draw=draw_square)
    model.save_pretrained(folders.model("detector"))
    tokenizer.save_pretrained(folders.model("detector"))


def detector_pixels(scene: Scene) -> torch.Tensor:
    """Return the detector's input for a scene, float tensor of shape (3, 128, 128)."""
    mean, std = LyricsRefinerConfig.image_mean, LyricsRefinerConfig.image_std
    return detector_view(scene.image, REFINER_IMAGE_SIZE, REFINER_IMAGE_SIZE, mean, std)


def visible_tags(scene: Scene) -> list[tuple[str, tuple[float, ...]]]:
    """Return all shapes of a scene and then all characters, each with its box: what the refiner should find."""
    characters = [(one.character, one.character_box) for one in scene.objects if one.character and one.character_box]
    return [(one.shape, one.box) for one in scene.objects] + characters


def _loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    output = model(**batch, return_dict=True)
    return output.loss + _DENSE_WEIGHT * _dense_loss(output, batch)


def _dense_loss(output: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return the focal loss of phrases and the loss of boxes over all encoder proposals.

    Proposals lie on grids with strides of 8, 16, 32 and 64 pixels. A proposal belongs to the smallest object whose
    center is near. In the finest grid, the proposal whose cell contains an object's center belongs to it as well.
    """
    boxes, logits = output.enc_outputs_coord_logits, output.enc_outputs_class
    valid = torch.isfinite(boxes).all(dim=-1)
    centers = _proposal_centers(boxes.shape[1], boxes.device)
    targets = torch.zeros_like(logits)
    target_boxes, predicted_boxes = [], []
    phrase_of_token = _phrases(batch["input_ids"][0])
    for index, labels in enumerate(batch["labels"]):
        if not len(labels["boxes"]):
            continue
        # Only the central part of an object counts. Otherwise large objects would own all proposals.
        near = labels["boxes"][:, 2:] * _CENTER_SHARE
        inside = ((centers[:, None] - labels["boxes"][None, :, :2]).abs() < near).all(dim=-1)
        inside |= _contains(centers, labels["boxes"][:, :2])
        area = labels["boxes"][:, 2:].prod(dim=-1).expand(len(centers), -1).masked_fill(~inside, torch.inf)
        smallest, owner = area.min(dim=1)
        owned = torch.isfinite(smallest) & valid[index]
        phrases = labels["class_labels"][owner[owned]]
        targets[index, owned, : len(phrase_of_token)] = (phrases[:, None] == phrase_of_token).float()
        target_boxes.append(labels["boxes"][owner[owned]])
        predicted_boxes.append(boxes[index, owned].sigmoid())
    text = torch.isfinite(logits) & valid[..., None]
    probability = logits[text].sigmoid()
    of_target = torch.where(targets[text] > 0, probability, 1 - probability)
    balance = torch.where(targets[text] > 0, 0.25, 0.75)
    count = max(sum(map(len, target_boxes)), 1)
    loss = -(balance * (1 - of_target) ** 2 * of_target.clamp(min=1e-6).log()).sum() / count
    if target_boxes:
        predicted, wanted = torch.cat(predicted_boxes), torch.cat(target_boxes)
        corners: Any = [center_to_corners_format(one) for one in (predicted, wanted)]  # pyright: ignore[reportArgumentType]
        iou = generalized_box_iou(*corners).diagonal()
        loss = 2 * loss + 5 * nn.functional.l1_loss(predicted, wanted) * 4 + 2 * (1 - iou).mean()
    return loss


def _proposal_centers(count: int, device: torch.device) -> torch.Tensor:
    """Return the cell centers of the encoder's grids, x and y in [0, 1], of shape (count, 2).

    Raises:
        ValueError: the grids have another number of cells.
    """
    centers = []
    for stride in _STRIDES:
        cells = (torch.arange(REFINER_IMAGE_SIZE // stride, device=device) + 0.5) * stride / REFINER_IMAGE_SIZE
        y, x = torch.meshgrid(cells, cells, indexing="ij")
        centers.append(torch.stack([x, y], dim=-1).flatten(0, 1))
    joined = torch.cat(centers)
    if len(joined) != count:
        raise ValueError(f"The encoder returned {count} proposals, expected {len(joined)}.")
    return joined


def _contains(centers: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return whether a cell of the finest grid contains a point, bool of shape (centers, points)."""
    distance = (centers[:, None] - points[None]).abs().amax(dim=-1)
    finest = torch.arange(len(centers), device=centers.device) < (REFINER_IMAGE_SIZE // _STRIDES[0]) ** 2
    return (distance <= 0.5 * _STRIDES[0] / REFINER_IMAGE_SIZE) & finest[:, None]


def _phrases(input_ids: torch.Tensor) -> torch.Tensor:
    """Return the number of the phrase of each token, of shape (tokens,), or -1 for stops and special tokens."""
    stops = torch.isin(input_ids, torch.tensor([101, 102, 1012], device=input_ids.device))
    return torch.where(stops, -1, (input_ids == 1012).cumsum(0))
