"""Symbolic inputs of the language model: before it sees images, every object of a scene is one vector.

The vector is the sum of the embeddings of the words that describe the object (size, color, shape, character) and of an
embedding of its box. It takes the place of a query of the MQ-Former.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..common.initialization import coordinate_values, fourier_features, word_id
from ..configs import CHAT_TEMPLATE, MQFORMER
from ..world.cases import Case, Outcome, answer_in_batches
from ..world.objects import CHARACTERS, COLORS, SHAPES, SIZES, SceneObject

IMAGE = "<image>"
_OCTAVES = MQFORMER["region_box_octaves"]
_MAX_WORDS = 4  # of an object: size, color, shape, character
_VISUAL, _QUERIES = MQFORMER["num_visual_queries"], MQFORMER["num_visual_queries"] + MQFORMER["num_grounding_queries"]
_HINT_AT_NAME, _HINT_AT_COORDINATES = 1, 2
_TOKENS_PER_COORDINATE = 3  # two tokens of the coordinate and a comma
_INITIAL_BOX_SCALE = 0.375  # of box vectors, relative to word embeddings


class SymbolicLanguageModel(LlamaForCausalLM):
    """LLaMA with a projection of boxes, which is trained with it and dropped afterwards.

    Attributes:
        box_scale: factor of box vectors. 0 leaves them out.
        hints: whether inputs contain hints during training: of a third of the rows the box of an answer is added where
            its coordinates follow, and of another third at its name. The model then learns to write a box
            before it learns to find one.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.box_scale, self.hints = 0.0, False
        self.boxes = nn.Linear(8 * _OCTAVES, config.hidden_size, bias=False)
        nn.init.orthogonal_(self.boxes.weight, (config.hidden_size / (4 * _OCTAVES)) ** 0.5)
        self.boxes.weight.data *= config.initializer_range * _INITIAL_BOX_SCALE

    def embed_boxes(self, boxes: torch.Tensor) -> torch.Tensor:
        """Embed xyxy boxes in [0, 1], from shape `(..., 4)` to `(..., width)`."""
        return self.boxes(fourier_features(boxes, _OCTAVES).flatten(-2))

    def embed_objects(self, words: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Embed objects.

        Args:
            words: int64 tensor of shape (B, N, 4), tokens of the words, and -1 as padding.
            boxes: float tensor of shape (B, N, 4), xyxy in [0, 1].

        Returns:
            Float tensor of shape (B, N, width), zero for an object without words.
        """
        table: Any = self.get_input_embeddings()
        vectors = (table(words.clamp(min=0)) * (words >= 0)[..., None]).sum(dim=2)
        exists = (words >= 0).any(dim=-1)[..., None]
        return vectors + exists * self.box_scale * self.embed_boxes(boxes)

    def embed_inputs(self, input_ids: torch.Tensor, words: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Embed tokens of shape (B, L) to (B, L, width). The N objects of a row replace its N tokens of -1."""
        embedded = self.get_input_embeddings()(input_ids.clamp(min=0))
        return embedded.masked_scatter((input_ids < 0)[..., None], self.embed_objects(words, boxes))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        words: torch.Tensor,
        boxes: torch.Tensor,
        hint_kinds: torch.Tensor,
        hint_boxes: torch.Tensor,
        **kwargs: Any,
    ) -> Any:
        """Run LLaMA on a batch of `SymbolicCollator`.

        Args:
            input_ids: int64 tensor of shape (B, L), with -1 in place of objects.
            attention_mask: int64 tensor of shape (B, L).
            words: int64 tensor of shape (B, N, 4), see `embed_objects`.
            boxes: float tensor of shape (B, N, 4), xyxy in [0, 1].
            hint_kinds: int64 tensor of shape (B, L), 1 at the name of an answered object, 2 before its coordinates.
            hint_boxes: float tensor of shape (B, L, 4), the box of the answer there.
            kwargs: arguments of LLaMA's forward, such as `labels`.
        """
        embedded = self.embed_inputs(input_ids, words, boxes)  # (B, L, D)
        if self.hints and self.training:
            kind_of_row = torch.randint(3, (len(hint_kinds), 1), device=hint_kinds.device)
            hinted = (hint_kinds > 0) & (hint_kinds == kind_of_row)
            embedded = embedded + hinted[..., None] * self.embed_boxes(hint_boxes)
        return super().forward(inputs_embeds=embedded, attention_mask=attention_mask, **kwargs)


class SymbolicCollator:
    """Collator from rows of `messages` and `objects` to batches for a `SymbolicLanguageModel`.

    Args:
        tokenizer: tokenizer of the language model. `"<image>"` is added to its tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
        self.tokens = {word: word_id(tokenizer, word) for word in (*SIZES, *COLORS, *SHAPES, *CHARACTERS)}
        self.image: Any = tokenizer.convert_tokens_to_ids(IMAGE)
        self.bracket = word_id(tokenizer, "[")
        self.values = torch.zeros(len(tokenizer))
        for value in coordinate_values().tolist():
            self.values[tokenizer.convert_tokens_to_ids(f"{value:.2f}")] = value
        for digit in range(10):
            self.values[tokenizer.convert_tokens_to_ids(str(digit))] = digit / 1000
        self.template = CHAT_TEMPLATE.replace(IMAGE, IMAGE * _QUERIES)

    def __call__(self, rows: Sequence[Mapping[str, Any]], prompts: bool = False) -> dict[str, torch.Tensor]:
        """Make a batch of B rows.

        Args:
            rows: rows of `messages` and `objects`.
            prompts: whether the rows are prompts to complete. They are padded on the left.

        Returns:
            The arguments of the model's forward, with `labels` of shape (B, L), which are -100 outside of answers.
        """
        batch: Any = self.tokenizer.apply_chat_template(
            [row["messages"] for row in rows],
            chat_template=self.template,
            add_generation_prompt=prompts,
            return_assistant_tokens_mask=True,
            return_dict=True,
            return_tensors="np",
            padding=True,
            tokenizer_kwargs={"padding_side": "left" if prompts else "right"},
        )
        ids, mask, answered = (
            torch.from_numpy(np.asarray(batch[name])) for name in ("input_ids", "attention_mask", "assistant_masks")
        )
        words, boxes = zip(*(self._symbols(row["objects"]) for row in rows), strict=True)
        hint_kinds, hint_boxes = self._hints(ids, answered)
        return {
            "input_ids": ids.masked_fill(ids == self.image, -1),
            "attention_mask": mask,
            "labels": ids.where(answered == 1, -100),
            "words": torch.stack(words),
            "boxes": torch.stack(boxes),
            "hint_kinds": hint_kinds,
            "hint_boxes": hint_boxes,
        }

    def _hints(self, ids: torch.Tensor, answered: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Find boxes in answers: in `blue square: [0.547, ...` a coordinate follows the bracket and each comma."""
        kinds, boxes = torch.zeros_like(ids), torch.zeros(*ids.shape, 4)
        for row, bracket in ((ids == self.bracket) & (answered == 1)).nonzero().tolist():
            before = bracket + _TOKENS_PER_COORDINATE * torch.arange(4)
            box = self.values[ids[row, before + 1]] + self.values[ids[row, before + 2]]
            name = bracket - 2
            kinds[row, before], kinds[row, name] = _HINT_AT_COORDINATES, _HINT_AT_NAME
            boxes[row, before], boxes[row, name] = box, box
        return kinds, boxes

    def _symbols(self, objects: Sequence[SceneObject]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return words and boxes of a scene. Visual queries and unused grounding queries have none."""
        words, boxes = torch.full((_QUERIES, _MAX_WORDS), -1), torch.zeros(_QUERIES, 4)
        for place, thing in enumerate(objects, _VISUAL):
            tokens = [self.tokens[word] for word in (thing.size, thing.color, thing.shape, thing.character) if word]
            words[place, : len(tokens)] = torch.tensor(tokens)
            boxes[place] = torch.tensor(thing.box)
        return words, boxes


@torch.inference_mode()
def answer_symbolic_cases(
    language_model: Any,
    symbolic_model: SymbolicLanguageModel,
    collator: SymbolicCollator,
    cases: Sequence[Case],
    batch_size: int = 64,
) -> list[Outcome]:
    """Answer each question about the symbols of its scene by greedy decoding. Images cannot be answered better.

    Args:
        language_model: `LlamaForCausalLM`, which answers.
        symbolic_model: model that LLaMA was taken from. It embeds objects.
        collator: collator of the prompts.
        cases: questions with their scenes.
        batch_size: number of questions in a batch.
    """

    def answer(batch: Sequence[Case]) -> list[str]:
        rows = [{"messages": case.conversation(), "objects": case.scene.objects} for case in batch]
        inputs = {name: value.to(symbolic_model.device) for name, value in collator(rows, prompts=True).items()}
        generated: Any = language_model.generate(
            inputs_embeds=symbolic_model.embed_inputs(inputs["input_ids"], inputs["words"], inputs["boxes"]),
            attention_mask=inputs["attention_mask"],
            max_new_tokens=40,
            do_sample=False,
        )
        return collator.tokenizer.batch_decode(generated, skip_special_tokens=True)

    return answer_in_batches(cases, batch_size, answer)
