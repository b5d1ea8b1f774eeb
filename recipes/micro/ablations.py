"""What the table compares: the full model, and models that lack one thing each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...processing_lyrics import VisualObjects

_BOX = 4  # the last numbers of a region feature


@dataclass(frozen=True)
class Variant:
    """A model of the table.

    Attributes:
        title: in the table.
        refiner: whether it has one; else all of its queries are visual.
        stage1: whether its first stage is trained.
        region_features: whether its grounding queries see more of an object than its box.
        settings: of the first stage, which replace those of the recipe.
    """

    title: str
    refiner: bool = True
    stage1: bool = True
    region_features: bool = True
    settings: dict[str, Any] = field(default_factory=dict)

    def view(self, objects: VisualObjects) -> VisualObjects:
        """The objects as this variant sees them."""
        if self.region_features:
            return objects
        features = np.array(objects.region_features)
        features[:, :-_BOX] = 0
        return replace(objects, region_features=features)


VARIANTS = {
    "full": Variant("full model"),
    "no_refiner": Variant("no refiner (visual queries only)", refiner=False, settings={"msp_weight": 0.0}),
    "no_stage1": Variant("no stage 1", stage1=False),
    "no_msp": Variant("stage 1 without MSP", settings={"msp_weight": 0.0}),
    "boxes_only": Variant("boxes, no region features", region_features=False),
}


class ViewedStore:
    """A store as a variant sees it.

    Args:
        store: a `RefinementStore`.
        variant: whose view is taken.
    """

    def __init__(self, store: Any, variant: Variant) -> None:
        self.store, self.variant = store, variant

    def check(self, processor: Any) -> str:
        """As the store's own."""
        return self.store.check(processor)

    def lookup(self, picture: Any, return_masks: bool = False) -> VisualObjects | None:
        """As the store's own."""
        objects = self.store.lookup(picture, return_masks)
        return None if objects is None else self.variant.view(objects)
