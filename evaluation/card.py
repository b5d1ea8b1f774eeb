"""Results of an evaluation as entries of a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult


def card_results(results: Mapping[str, Any]) -> list[EvalResult]:
    """Return the reported score of each unit as an entry for a model card; units without a score have none.

    Args:
        results: content of `results.json`.
    """
    return [
        EvalResult(
            task_type="image-text-to-text",
            task_name="images and text to text",
            dataset_type=unit["data"],
            dataset_name=unit["title"] + _part(unit),
            dataset_split=unit["split"],
            metric_type=f"{unit['metric']} ({unit['variant']})",
            metric_name=next(iter(unit["values"])),
            metric_value=round(unit["score"], 1),
        )
        for unit in results["tasks"].values()
        if unit["score"] is not None
    ]


def _part(unit: Mapping[str, Any]) -> str:
    """Return that only a part of the data was used, where a note says so."""
    drawn = any(": a draw of " in note for note in unit["notes"])
    return f" (a draw of {unit['samples']:,})" if drawn else ""
