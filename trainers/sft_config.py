"""Settings of the second stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import SFTConfig

from .common.data_arguments import RowArguments, require_one_of
from .common.trainable_parts import TuningArguments


@dataclass
class LyricsSFTConfig(TuningArguments, RowArguments, SFTConfig):  # pyright: ignore[reportIncompatibleVariableOverride]
    """TRL's `SFTConfig` for `LyricsSFTTrainer`: what is trained, how LoRA is set, and how rows are read."""

    learning_rate: float = field(default=1e-4, metadata={"help": "The highest learning rate."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Shape of the learning rate after the warm-up."})
    warmup_steps: float = field(default=0.03, metadata={"help": "Steps of a rising learning rate; below 1, a share."})
    max_length: int | None = field(
        default=2048, metadata={"help": "Longer conversations lose text, never pictures, boxes or the last question."}
    )
    box_units: str = field(
        default="relative", metadata={"help": "Of boxes in rows: 'relative' in [0, 1], or 'pixel'; xyxy."}
    )
    flip: float = field(default=0.0, metadata={"help": "Probability of flipping a picture; words stay as they are."})
    crop: float = field(default=0.0, metadata={"help": "Probability of cropping a picture around its boxes."})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("box_units", self.box_units, ("relative", "pixel"))
        if self.packing or self.padding_free:
            raise ValueError("Pictures are not packed: leave packing and padding_free off.")
