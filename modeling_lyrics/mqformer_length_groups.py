"""Passes of the MQ-Former over texts of different lengths, in groups of similar length, so that little is padding.

Attention never sees padding, so the states of real positions stay the same. The number of groups depends on the number
of rows alone: on all ranks the MQ-Former is called equally often.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad

from .modeling_mqformer import LyricsMQFormerModel
from .mqformer_attention_masks import AttentionTable, SegmentedText, run_mqformer
from .mqformer_key_values import LyricsImageKeyValues

MOST_GROUPS = 4
ROWS_OF_A_GROUP = {"cpu": 4}  # fewer rows make no use of a GPU
ROWS_ON_A_GPU = 32


def run_in_groups(
    mqformer: LyricsMQFormerModel,
    table: AttentionTable,
    text: SegmentedText,
    images: LyricsImageKeyValues | None = None,
    image_rows: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run texts with or without images, as `run_mqformer` does.

    On a GPU the host waits for the lengths of the texts. A compiled model runs all rows together, whose shapes do not
    depend on the lengths.

    Args:
        mqformer, table, text, images, image_rows: arguments of `run_mqformer`.
        kwargs: its further arguments.

    Returns:
        States of the queries and of the text; those of padding are zeros in a shorter group.
    """
    count = _num_groups(text)
    if count == 1:
        return run_mqformer(mqformer, table, text, images, image_rows=image_rows, **kwargs)
    lengths, device = text_lengths(text), text.input_ids.device
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    size = -(-len(order) // count)
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    outputs = []
    for group in groups:
        rows, longest = torch.tensor(group, device=device), max(lengths[group[-1]], 1)
        own = None if images is None else rows if image_rows is None else image_rows.index_select(0, rows)
        part = text.select(rows).map(lambda tensor, longest=longest: tensor[:, :longest])
        outputs.append(run_mqformer(mqformer, table, part, images, image_rows=own, **kwargs))
    back = torch.tensor(order, device=device).argsort()
    queries = torch.cat([states for states, _ in outputs]).index_select(0, back)
    if not outputs[0][1].shape[1]:  # the text was not kept
        return queries, torch.cat([states for _, states in outputs])
    width = text.input_ids.shape[1]
    texts = torch.cat([pad(states, (0, 0, 0, width - states.shape[1])) for _, states in outputs])
    return queries, texts.index_select(0, back)


def text_lengths(text: SegmentedText) -> list[int]:
    """Return the number of positions of each text up to its last token."""
    places = torch.arange(1, text.segment_ids.shape[1] + 1, device=text.segment_ids.device)
    return ((text.segment_ids > 0) * places).amax(1).tolist()


def _num_groups(text: SegmentedText) -> int:
    """Return the number of groups, which all ranks share as they have equally many rows."""
    kind = text.input_ids.device.type
    if kind == "meta" or torch.compiler.is_compiling() or not text.input_ids.shape[1]:
        return 1
    return max(1, min(MOST_GROUPS, len(text.input_ids) // ROWS_OF_A_GROUP.get(kind, ROWS_ON_A_GPU)))


__all__ = ["run_in_groups"]
