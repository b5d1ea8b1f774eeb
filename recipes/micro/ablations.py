"""Variants of the micro model that the table compares: the full model, and models that each lack one thing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from ...processing_lyrics import VisualObjects
from ...processing_lyrics.protocols import CheckedObjectStore

_BOX_SIZE = 4  # the last numbers of a region feature are the box


@dataclass(frozen=True)
class Variant:
    """Variant of the micro model.

    Attributes:
        title: name in the table.
        refiner: whether the model has a refiner. Otherwise all of its queries are visual.
        stage1: whether its first stage is trained.
        region_features: whether grounding queries see the region features of objects, or only their boxes.
        settings: settings of the first stage that replace those of the recipe.
    """

    title: str
    refiner: bool = True
    stage1: bool = True
    region_features: bool = True
    settings: dict[str, Any] = field(default_factory=dict)

    def view(self, objects: VisualObjects) -> VisualObjects:
        """Return the objects as the model sees them."""
        if self.region_features:
            return objects
        features = np.array(objects.region_features)
        features[:, :-_BOX_SIZE] = 0
        return replace(objects, region_features=features)


VARIANTS = {
    "full": Variant("full model"),
    "no_refiner": Variant("no refiner (visual queries only)", refiner=False, settings={"msp_weight": 0.0}),
    "no_stage1": Variant("no stage 1", stage1=False),
    "no_msp": Variant("stage 1 without MSP", settings={"msp_weight": 0.0}),
    "boxes_only": Variant("boxes, no region features", region_features=False),
}


@dataclass
class VariantStore:
    """Store whose objects a variant sees.

    Args:
        store: store of refined images.
        variant: variant of the model.
    """

    store: CheckedObjectStore
    variant: Variant

    def check(self, processor: Any) -> str:
        """Return the fingerprint of the store's refiner, or raise an error if it is not the processor's."""
        return self.store.check(processor)

    def lookup(self, picture: Image.Image) -> VisualObjects | None:
        """Return the objects of an image, or `None` if the store does not hold it."""
        objects = self.store.lookup(picture)
        return None if objects is None else self.variant.view(objects)
