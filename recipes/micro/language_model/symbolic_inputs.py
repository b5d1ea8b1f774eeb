"""What the language model is told of a scene before it sees pictures: each object as one vector.

A vector is the sum of the words that describe the object (size, color, shape, character) and of its box, and stands
where a query of the MQ-Former stands later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ..common.initialization import all_coordinates, make_waves
from ..configs import CHAT_TEMPLATE, MQFORMER
from ..world.scenes import CHARACTERS, COLORS, SHAPES, SIZES, SceneObject

IMAGE = "<image>"
_OCTAVES = MQFORMER["region_box_octaves"]
_WORDS = 4  # of an object at most: size, color, shape, character
_VISUAL, _GROUNDING = MQFORMER["num_visual_queries"], MQFORMER["num_grounding_queries"]
_NAME, _DUE = 1, 2  # tokens of an answer at which its box may be hinted at: its name, and what each coordinate follows
_TO_COORDINATE = 3  # tokens from one coordinate to the next: two of its own, and a comma
_QUIET = 0.375  # how loud boxes begin, against words


class ToldLanguageModel(LlamaForCausalLM):
    """LLaMA, and a projection by which it is told boxes, which learns with it and is dropped afterwards.

    Attributes:
        loudness: of boxes; 0 leaves them out.
        hints: whether, while it learns, a third of the rows give each answer's box away where its coordinates are due,
            and another third where it is named, so that to write a box is learned before to find it.
    """

    def __init__(self, config: LlamaConfig, loudness: float = 0.0, hints: bool = False) -> None:
        super().__init__(config)
        self.loudness, self.hints = loudness, hints
        self.boxes = nn.Linear(8 * _OCTAVES, config.hidden_size, bias=False)
        nn.init.orthogonal_(self.boxes.weight, (config.hidden_size / (4 * _OCTAVES)) ** 0.5)
        self.boxes.weight.data *= config.initializer_range * _QUIET

    def tell_boxes(self, boxes: torch.Tensor) -> torch.Tensor:
        """Boxes, `(..., 4)` xyxy in [0, 1], as vectors `(..., width)`."""
        return self.boxes(make_waves(boxes, _OCTAVES).flatten(-2))

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
        there = (words >= 0).any(dim=-1)[..., None]
        return vectors + there * self.loudness * self.tell_boxes(boxes)

    def embed(self, input_ids: torch.Tensor, words: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Of tokens, (B, L, width), with what is told (N vectors of each row) where they are -1."""
        embedded = self.get_input_embeddings()(input_ids.clamp(min=0))
        return embedded.masked_scatter((input_ids < 0)[..., None], self.tell(words, boxes))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        words: Any,
        boxes: Any,
        hints: Any,
        hinted: Any,
        **kwargs: Any,
    ) -> Any:
        """As LLaMA's, with a batch of `ToldCollator`."""
        embedded = self.embed(input_ids, words, boxes)
        if self.hints and self.training:
            by_chance = torch.randint(3, (len(hints), 1), device=hints.device)
            here = (hints > 0) & (hints == by_chance)
            embedded = embedded + here[..., None] * self.tell_boxes(hinted)
        return super().forward(inputs_embeds=embedded, attention_mask=attention_mask, **kwargs)


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
        self.bracket = find_word(tokenizer, "[")
        self.values = torch.zeros(len(tokenizer))
        for value in all_coordinates().tolist():
            self.values[tokenizer.convert_tokens_to_ids(f"{value:.2f}")] = value
        for digit in range(10):
            self.values[tokenizer.convert_tokens_to_ids(str(digit))] = digit / 1000
        self.template = CHAT_TEMPLATE.replace(IMAGE, IMAGE * (_VISUAL + _GROUNDING))

    def __call__(self, rows: Sequence[Mapping[str, Any]], prompts: bool = False) -> dict[str, torch.Tensor]:
        """Make a batch of B rows, or of prompts that are to be answered, which are padded on the left.

        Returns:
            `input_ids`, `attention_mask` and `labels` (B, L) int64, right-padded; `words` and `boxes` of
            `ToldLanguageModel.tell`; `hints` (B, L) int64, 1 at the name of an object whose box is answered, 2 where
            one of its coordinates is due, and `hinted` (B, L, 4), the boxes there.
        """
        batch = self.tokenizer.apply_chat_template(
            [row["messages"] for row in rows],
            chat_template=self.template,
            add_generation_prompt=prompts,
            return_assistant_tokens_mask=True,
            return_dict=True,
            return_tensors="np",
            padding=True,
            tokenizer_kwargs={"padding_side": "left" if prompts else "right"},
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
            **self._find_answered_boxes(ids, spoken),
        }

    def _find_answered_boxes(self, ids: torch.Tensor, spoken: torch.Tensor) -> dict[str, torch.Tensor]:
        """`blue square: [0.547, ...`: the bracket and each comma is followed by a coordinate, of two tokens."""
        hints, hinted = torch.zeros_like(ids), torch.zeros(*ids.shape, 4)
        for row, start in ((ids == self.bracket) & (spoken == 1)).nonzero().tolist():
            due = start + _TO_COORDINATE * torch.arange(4)
            box = self.values[ids[row, due + 1]] + self.values[ids[row, due + 2]]
            name = start - 2
            hints[row, due], hints[row, name] = _DUE, _NAME
            hinted[row, due], hinted[row, name] = box, box
        return {"hints": hints, "hinted": hinted}

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
