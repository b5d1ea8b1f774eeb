"""Arms: the models that the controls compare, each tuned for the same number of steps on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SHIPPED = "shipped"


@dataclass(frozen=True)
class Arm:
    """Model of the comparison.

    Attributes:
        title: name in the table.
        sight: name of what the model sees of a scene, key of `SIGHTS`.
        encoder: name of the vision encoder that replaces both the shipped one and the refiner, key of `ENCODERS`, or
            `None`. Its first stage is trained, too. All other arms start from the shipped first stage.
    """

    title: str
    sight: str = "refined"
    encoder: str | None = None


ARMS: Mapping[str, Arm] = {
    "full": Arm("full: encoder and refiner, as they ship"),
    "no_refiner_128": Arm("(a) no refiner, an encoder at 128 pixels", "picture", "captions_128"),
    "no_refiner_128_dense": Arm("(b) (a) with the refiner's labels and FLOP", "picture", "dense_128"),
    "segmenter_grid": Arm("(c) the segmenter's grid, no boxes", "picture", "segmenter_grid"),
    "refiner_alone": Arm("(d) refiner alone, the whole view is blank", "blank_view"),
    "text": Arm("(e) labels, boxes and colors as plain text", "text"),
    "oracle": Arm("(f) true objects instead of detected ones", "oracle"),
    "shuffled": Arm("(f) region features exchanged among the objects", "shuffled"),
}

# The model that ships, which is not trained: only what it sees of the test scenes changes.
EVALUATIONS: Mapping[str, Arm] = {
    SHIPPED: Arm("as it ships"),
    "shipped_blank_view": Arm("the whole view is blank", "blank_view"),
    "shipped_other_view": Arm("the whole view of another scene", "other_view"),
    "shipped_shuffled": Arm("region features exchanged among the objects", "shuffled"),
    "shipped_borrowed": Arm("region features of another scene", "borrowed"),
    "shipped_oracle": Arm("true objects instead of detected ones", "oracle"),
}
