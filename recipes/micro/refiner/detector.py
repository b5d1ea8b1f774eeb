"""Step 2, third part: MM-Grounding-DINO learns to find what it is asked for.

Set matching alone teaches a detector of this size nothing in thousands of steps. So every proposal of its encoder
whose middle lies in an object learns that object's phrase and box as well.
"""

from __future__ import annotations

from pathlib import Path
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
from ..common.step_trainer import StepArguments, train_step
from ..configs import REFINED_VIEW, TAGS, build_micro_bert_tokenizer, detector_config
from ..world.scenes import Scene, SceneObject

TAG_SEPARATOR = ". "  # how Transformers' loss tells one phrase of a prompt from the next
_FEWEST_TAGS = 8
_DENSE_WEIGHT = 1.0
_MIDDLE = 0.25  # of an object: so far from its centre, in shares of its sides
_FINEST = (REFINED_VIEW // 8) ** 2
_FIRST_LOGIT = -4.0  # nothing is there, until something is learned


def train_detector(arguments: StepArguments, backbone: Path, out: Path) -> None:
    """Train and write MM-Grounding-DINO, and its tokenizer.

    Args:
        arguments: of the run.
        backbone: the encoder that it begins with.
        out: a folder.
    """
    tokenizer = build_micro_bert_tokenizer()
    config = LyricsRefinerConfig

    def build() -> Any:
        model: Any = MMGroundingDinoForObjectDetection(detector_config(tokenizer))
        encoder = ResNetBackbone.from_pretrained(backbone)
        model.model.backbone.conv_encoder.model.load_state_dict(encoder.state_dict())
        for name, parameter in model.named_parameters():
            if name.endswith(("class_embed.0.bias", "output_class_embed.bias")):
                nn.init.constant_(parameter, _FIRST_LOGIT)
        model.model.text_backbone.register_forward_pre_hook(make_mask_additive, with_kwargs=True)
        return model

    def view(scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        pixels = detector_view(scene.image, REFINED_VIEW, REFINED_VIEW, config.image_mean, config.image_std)
        return {"pixel_values": pixels, "found": visible_tags(scene), "order": random.permutation(len(TAGS))}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        """One prompt for all scenes of a batch; what it does not ask for is not there."""
        order = rows[0]["order"]
        random = np.random.default_rng(order)
        asked = [TAGS[index] for index in order[: random.integers(_FEWEST_TAGS, len(TAGS) + 1)]]
        text = tokenizer([TAG_SEPARATOR.join(asked).lower() + "."] * len(rows), return_tensors="pt")
        labels = []
        for row in rows:
            found = [(asked.index(tag), box) for tag, box in row["found"] if tag in asked]
            boxes = torch.tensor([box for _, box in found], dtype=torch.float32).view(-1, 4)
            boxes = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
            labels.append({"class_labels": torch.tensor([tag for tag, _ in found], dtype=torch.long), "boxes": boxes})
        return {**text, "pixel_values": torch.stack([row["pixel_values"] for row in rows]), "labels": labels}

    model = train_step(build, arguments, view, collate, loss=_loss)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def visible_tags(scene: Scene) -> list[tuple[str, tuple[float, ...]]]:
    """Every shape and character of a scene with its box: what the refiner should find."""
    things: tuple[SceneObject, ...] = scene.objects
    characters = [(thing.character, thing.character_box) for thing in things if thing.character and thing.character_box]
    return [(thing.shape, thing.box) for thing in things] + characters


def _loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    output = model(**batch, return_dict=True)
    return output.loss + _DENSE_WEIGHT * _dense_loss(output, batch)


def _dense_loss(output: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Focal loss of the phrase and loss of the box, at every proposal of the encoder.

    Proposals lie on grids that are 8, 16, 32 and 64 times coarser than the picture. One belongs to the smallest object
    in whose middle it lies; of the finest grid also the one that holds an object's centre.
    """
    boxes, logits = output.enc_outputs_coord_logits, output.enc_outputs_class
    valid = torch.isfinite(boxes).all(dim=-1)
    centers = _proposal_centers(boxes.shape[1], boxes.device)
    targets = torch.zeros_like(logits)
    wanted, given = [], []
    phrase_of_token = _phrases(batch["input_ids"][0])
    for index, labels in enumerate(batch["labels"]):
        if not len(labels["boxes"]):
            continue
        # only the middle of an object speaks for it, lest large ones take all queries
        middle = labels["boxes"][:, 2:] * _MIDDLE
        inside = ((centers[:, None] - labels["boxes"][None, :, :2]).abs() < middle).all(dim=-1)
        inside |= _nearest(centers, labels["boxes"][:, :2])
        area = labels["boxes"][:, 2:].prod(dim=-1).expand(len(centers), -1).masked_fill(~inside, torch.inf)
        smallest, owner = area.min(dim=1)
        taken = torch.isfinite(smallest) & valid[index]
        phrases = labels["class_labels"][owner[taken]]
        targets[index, taken, : len(phrase_of_token)] = (phrases[:, None] == phrase_of_token).float()
        wanted.append(labels["boxes"][owner[taken]])
        given.append(boxes[index, taken].sigmoid())
    text = torch.isfinite(logits) & valid[..., None]
    probability = logits[text].sigmoid()
    right = torch.where(targets[text] > 0, probability, 1 - probability)
    balance = torch.where(targets[text] > 0, 0.25, 0.75)
    count = max(sum(map(len, wanted)), 1)
    loss = -(balance * (1 - right) ** 2 * right.clamp(min=1e-6).log()).sum() / count
    if wanted:
        found, asked = torch.cat(given), torch.cat(wanted)
        overlap = generalized_box_iou(_corners(found), _corners(asked)).diagonal()
        loss = 2 * loss + 5 * nn.functional.l1_loss(found, asked) * 4 + 2 * (1 - overlap).mean()
    return loss


def _corners(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes as xyxy."""
    corners: Any = center_to_corners_format(boxes)  # pyright: ignore[reportArgumentType]
    return corners


def _proposal_centers(count: int, device: torch.device) -> torch.Tensor:
    """(count, 2) middles of the cells of the encoder's grids, x and y in [0, 1]."""
    centers = []
    for stride in (8, 16, 32, 64):
        cells = (torch.arange(REFINED_VIEW // stride, device=device) + 0.5) * stride / REFINED_VIEW
        y, x = torch.meshgrid(cells, cells, indexing="ij")
        centers.append(torch.stack([x, y], dim=-1).flatten(0, 1))
    joined = torch.cat(centers)
    if len(joined) != count:
        raise ValueError(f"The encoder made {count} proposals, where {len(joined)} were expected.")
    return joined


def _nearest(centers: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(count, places) whether a cell of the finest grid is the one that holds a place."""
    distance = (centers[:, None] - places[None]).abs().amax(dim=-1)
    return (distance <= 0.5 * 8 / REFINED_VIEW) & (torch.arange(len(centers), device=centers.device) < _FINEST)[:, None]


def _phrases(input_ids: torch.Tensor) -> torch.Tensor:
    """(tokens,) the number of the phrase that each token of a prompt belongs to; -1 for stops and special tokens."""
    stops = torch.isin(input_ids, torch.tensor([101, 102, 1012], device=input_ids.device))
    return torch.where(stops, -1, (input_ids == 1012).cumsum(0))
