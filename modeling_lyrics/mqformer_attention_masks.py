"""Attention masks of the pretraining objectives: four kinds of positions, and one table for each objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

import torch

from .modeling_mqformer import KeptPart, LyricsMQFormerModel, Recomputed
from .mqformer_key_values import LyricsImageKeyValues


class Segment(IntEnum):
    """Segment of the MQ-Former's sequence that a position belongs to."""

    PADDING = 0
    VISUAL = 1  # queries that attend to the whole image
    GROUNDING = 2  # queries that attend to its objects
    SPATIAL = 3  # [BOS] and the objects as text
    CAPTION = 4  # [CLS], the caption and [SEP]


V, G, S, C = Segment.VISUAL, Segment.GROUNDING, Segment.SPATIAL, Segment.CAPTION


@dataclass(frozen=True)
class AttentionTable:
    """Segments that each segment attends to; an unlisted segment attends to nothing, and nothing attends to padding.

    Attributes:
        sees: mapping of each segment to those whose positions it may attend to.
        causal: whether a caption position attends to no later caption position.
    """

    sees: Mapping[Segment, tuple[Segment, ...]]
    causal: bool = False

    def mask(self, segments: torch.Tensor) -> torch.Tensor:
        """Return the mask of a batch, True where the row may attend to the column.

        Args:
            segments: int64 tensor of shape (N, L).

        Returns:
            bool tensor of shape (N, L, L).
        """
        of = {segment: segments == segment.value for segment in (V, G, S, C)}
        allowed = torch.zeros(*segments.shape, segments.shape[-1], dtype=torch.bool, device=segments.device)
        for segment, seen in self.sees.items():
            keys = torch.stack([of[one] for one in seen]).any(0)
            allowed |= of[segment][:, :, None] & keys[:, None, :]
        if self.causal:
            positions = torch.arange(segments.shape[-1], device=segments.device)
            later = positions[None, :] > positions[:, None]
            allowed &= ~(of[C][:, :, None] & of[C][:, None, :] & later)
        return allowed


CONTRASTIVE = AttentionTable({V: (V, G), G: (V, G), S: (S, C), C: (S, C)})
MATCHING = AttentionTable({V: (V, C), C: (V, C), G: (G, S), S: (G, S)})
CAPTIONING = AttentionTable({V: (V, G), G: (V, G), C: (V, G, C)}, causal=True)
SPATIAL = AttentionTable(dict.fromkeys((V, G, S, C), (V, G, S, C)))


@dataclass
class SegmentedText:
    """Texts of N rows, right-padded.

    Attributes:
        input_ids, position_ids, segment_ids: int64 tensors of shape (N, L); the `Segment` of padding is 0.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    segment_ids: torch.Tensor

    def select(self, rows: torch.Tensor) -> SegmentedText:
        """Return the texts at `rows`, an int64 tensor of shape (R,)."""
        return self.map(lambda tensor: tensor.index_select(0, rows))

    def pad(self, length: int) -> SegmentedText:
        """Return the texts padded to a length."""
        return self.map(lambda tensor: torch.nn.functional.pad(tensor, (0, length - tensor.shape[1])))

    def join(self, other: SegmentedText) -> SegmentedText:
        """Return these rows followed by those of `other`, which must have the same length."""
        others = iter((other.input_ids, other.position_ids, other.segment_ids))
        return self.map(lambda tensor: torch.cat([tensor, next(others)]))

    def without_objects(self, rows: torch.Tensor) -> SegmentedText:
        """Return the texts with the objects after `[BOS]` turned into padding in some rows.

        Args:
            rows: bool tensor of shape (N,), True for a text that shall have none.
        """
        spatial = self.segment_ids == Segment.SPATIAL.value
        objects = spatial & (spatial.cumsum(dim=1) > 1) & rows[:, None]
        return SegmentedText(
            self.input_ids, self.position_ids, self.segment_ids.masked_fill(objects, Segment.PADDING.value)
        )

    def have_objects(self) -> torch.Tensor:
        """Return which texts have objects after `[BOS]`, a bool tensor of shape (N,)."""
        return (self.segment_ids == Segment.SPATIAL.value).sum(dim=1) > 1

    def starts(self, segment: Segment) -> torch.Tensor:
        """Return the first position of a segment in each text, shape (N,)."""
        return (self.segment_ids == segment.value).int().argmax(dim=1)

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> SegmentedText:
        """Return the texts with one function applied to all three tensors."""
        return SegmentedText(change(self.input_ids), change(self.position_ids), change(self.segment_ids))


def run_mqformer(
    mqformer: LyricsMQFormerModel,
    table: AttentionTable,
    text: SegmentedText | None = None,
    images: LyricsImageKeyValues | None = None,
    kept: KeptPart = "all",
    image_rows: torch.Tensor | None = None,
    recompute: Recomputed = "nothing",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run queries over images, text, or both, with the mask of an objective.

    Args:
        mqformer: `LyricsMQFormerModel`.
        table: attention table of the objective.
        text: texts of N rows, or `None` for the queries alone.
        images: keys and values of N images, or `None` for the text alone.
        kept: part whose states are computed in the last layer, where both run.
        image_rows: int64 tensor of shape (N,), the image of each row among `images`; row by row by default.
        recompute: part that the backward pass computes again, see `LyricsMQFormerModel.forward`.

    Returns:
        States of the queries (N, V + G, hidden) and of the text (N, L, hidden); a part that did not run, or was not
        kept, has length 0.
    """
    config = mqformer.config
    parts = [] if text is None else [text.segment_ids]
    if images is not None:
        kinds = [V.value] * config.num_visual_queries + [G.value] * config.num_grounding_queries
        num_rows = images.num_images if image_rows is None else len(image_rows)
        parts.insert(0, torch.tensor(kinds, device=mqformer.device).expand(num_rows, -1))
    states = mqformer(
        input_ids=None if text is None else text.input_ids,
        position_ids=None if text is None else text.position_ids,
        attention_mask=table.mask(torch.cat(parts, dim=1)),
        image_key_values=images,
        text_only=images is None,
        kept=kept,
        image_rows=image_rows,
        recompute=recompute,
        return_dict=True,
    ).last_hidden_state
    has_queries = images is not None and (kept != "text" or text is None)
    return states.tensor_split((config.num_queries if has_queries else 0,), dim=1)
