"""What the language model is told of a scene before it sees pictures: each object as one vector.

A vector is the sum of the words that describe the object (size, color, shape, character) and of its box, and stands
where a query of the MQ-Former stands later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from .parts import CHAT_TEMPLATE, MQFORMER
from .world import CHARACTERS, COLORS, SHAPES, SIZES, SceneObject

IMAGE = "<image>"
_OCTAVES = MQFORMER["region_box_octaves"]
_WORDS = 4  # of an object at most: size, color, shape, character
_VISUAL, _GROUNDING = MQFORMER["num_visual_queries"], MQFORMER["num_grounding_queries"]


class ToldLanguageModel(LlamaForCausalLM):
    """LLaMA, and the directions in which it is told boxes; they are fixed, and dropped afterwards.

    Attributes:
        loudness: of boxes, against the words of the vocabulary.
        noise: against what is told. With noise, it and boxes are more or less loud, from nothing to this, by chance.
    """

    box_directions: torch.Tensor

    def __init__(self, config: LlamaConfig, loudness: float = 0.0, noise: float = 0.0) -> None:
        super().__init__(config)
        self.loudness, self.noise = loudness, noise
        directions, _ = torch.linalg.qr(torch.randn(config.hidden_size, 8 * _OCTAVES))
        self.register_buffer("box_directions", directions * (config.hidden_size / (4 * _OCTAVES)) ** 0.5)

    def tell(self, words: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Vectors of objects.

        Args:
            words: (B, N, 4) int64 tokens, -1 where there is none.
            boxes: (B, N, 4) float xyxy in [0, 1].

        Returns:
            (B, N, width); zeros where there are no words.
        """
        table: Any = self.get_input_embeddings()
        vectors = (table(words.clamp(min=0)) * (words >= 0)[..., None]).sum(dim=2)
        angles = boxes[..., None] * math.pi * 2.0 ** torch.arange(_OCTAVES, device=boxes.device)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(2) @ self.box_directions.mT
        loudness = self.loudness * table.weight.detach().std() * (words >= 0).any(dim=-1)[..., None]
        if not self.noise:
            return vectors + loudness * waves
        by_chance = torch.rand(2, len(words), 1, 1, device=boxes.device)
        noise = torch.randn_like(vectors) * vectors.detach().std() * self.noise
        return vectors + by_chance[0] * loudness * waves + by_chance[1] * noise

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, words: Any, boxes: Any, **kwargs: Any
    ) -> Any:
        """As LLaMA's; `input_ids` (B, L) are -1 where what is told stands, N of each row."""
        embedded = self.get_input_embeddings()(input_ids.clamp(min=0))
        here = (input_ids < 0)[..., None]
        told = self.tell(words, boxes)
        return super().forward(
            inputs_embeds=embedded.masked_scatter(here, told), attention_mask=attention_mask, **kwargs
        )


class ToldCollator:
    """Rows with `messages` and `objects` -> batches for a `ToldLanguageModel`.

    Args:
        tokenizer: of the language model; `"<image>"` becomes one of its tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
        self.tokens = {word: find_word(tokenizer, word) for word in (*SIZES, *COLORS, *SHAPES, *CHARACTERS)}
        self.image = tokenizer.convert_tokens_to_ids(IMAGE)
        self.template = CHAT_TEMPLATE.replace(IMAGE, IMAGE * (_VISUAL + _GROUNDING))

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch of B rows.

        Returns:
            `input_ids`, `attention_mask` and `labels` (B, L) int64, right-padded, and `words` and `boxes` of
            `ToldLanguageModel.tell`.
        """
        batch = self.tokenizer.apply_chat_template(
            [row["messages"] for row in rows],
            chat_template=self.template,
            return_assistant_tokens_mask=True,
            return_dict=True,
            return_tensors="np",
            padding=True,
            tokenizer_kwargs={"padding_side": "right"},
        )
        ids, mask, spoken = (
            torch.from_numpy(np.asarray(batch[name])) for name in ("input_ids", "attention_mask", "assistant_masks")
        )
        told = [self._tell(row["objects"]) for row in rows]
        return {
            "input_ids": ids.masked_fill(ids == self.image, -1),
            "attention_mask": mask,
            "labels": ids.where(spoken == 1, -100),
            **{name: torch.stack([one[name] for one in told]) for name in ("words", "boxes")},
        }

    def _tell(self, objects: Sequence[SceneObject]) -> dict[str, torch.Tensor]:
        """Visual queries say nothing, and neither do grounding queries without an object."""
        words = torch.full((_VISUAL + _GROUNDING, _WORDS), -1)
        boxes = torch.zeros(_VISUAL + _GROUNDING, 4)
        for place, thing in enumerate(objects, _VISUAL):
            said = filter(None, (thing.size, thing.color, thing.shape, thing.character))
            tokens = [self.tokens[one] for one in said]
            words[place, : len(tokens)] = torch.tensor(tokens)
            boxes[place] = torch.tensor(thing.box)
        return {"words": words, "boxes": boxes}


def find_word(tokenizer: Any, word: str) -> int:
    """The token of a word; of a digit, that of it without the space before."""
    return tokenizer(f" {word}", add_special_tokens=False)["input_ids"][-1]
