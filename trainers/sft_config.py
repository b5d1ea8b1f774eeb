"""Training arguments of the second stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import SFTConfig

from .common.data_arguments import RowArguments, require_one_of
from .common.trainable_parts import TuningArguments


@dataclass
class LyricsSFTConfig(TuningArguments, RowArguments, SFTConfig):  # pyright: ignore[reportIncompatibleVariableOverride]
    """TRL's `SFTConfig` for `LyricsSFTTrainer`, with trainable parts, LoRA, and the settings of the data."""

    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule after the warm-up."})
    warmup_steps: float = field(default=0.03, metadata={"help": "Warm-up steps; below 1, a fraction of all steps."})
    max_length: int | None = field(default=2048, metadata={"help": "Tokens to which long conversations are shortened."})
    box_units: str = field(default="relative", metadata={"help": "Boxes (xyxy): 'relative' in [0, 1], or 'pixel'."})
    flip: float = field(default=0.0, metadata={"help": "Probability that an image is flipped; text is not changed."})
    crop: float = field(default=0.0, metadata={"help": "Probability that an image is cropped around its boxes."})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("box_units", self.box_units, ("relative", "pixel"))
        if self.packing or self.padding_free:
            raise ValueError("Images cannot be packed: set packing=False and padding_free=False.")
