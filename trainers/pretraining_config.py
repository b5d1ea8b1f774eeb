"""Settings of the first stage; defaults are BLIP-2's, which the paper follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from .common.data_arguments import RowArguments, require_one_of


@dataclass
class LyricsPretrainingArguments(RowArguments, TrainingArguments):
    """`TrainingArguments` for `LyricsPretrainingTrainer`: other defaults, and the settings of the data.

    The learning rate rises in `warmup_steps` from a hundredth to 1e-4, and falls along a cosine to a tenth of that. All
    batches have one size on every rank (`dataloader_drop_last`), which the contrast over all ranks needs.
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "The highest learning rate."})
    weight_decay: float = field(default=0.05, metadata={"help": "Of all weights but biases and norms."})
    adam_beta2: float = field(default=0.98, metadata={"help": "Beta2 of AdamW."})
    warmup_steps: float = field(default=2000, metadata={"help": "Steps of a rising learning rate; below 1, a share."})
    lr_scheduler_type: str = field(
        default="cosine_warmup_with_min_lr", metadata={"help": "Shape of the learning rate after the warm-up."}
    )
    lr_scheduler_kwargs: dict[str, Any] | str | None = field(
        default_factory=lambda: {"min_lr_rate": 0.1, "warmup_lr_rate": 0.01}, metadata={"help": "Of the scheduler."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Every trained weight is used in each step."}
    )
    train_vision_model: bool = field(default=False, metadata={"help": "Train the vision encoder; else it is frozen."})
    image_column: str = field(default="image", metadata={"help": "Column of the pictures."})
    caption_column: str = field(default="caption", metadata={"help": "Column of the captions."})
    mask_probability: float = field(default=0.15, metadata={"help": "Of an item, in masked spatial prediction."})
    mask_unit: str = field(
        default="item", metadata={"help": "What is masked as one: an item (a label or a coordinate), or an object."}
    )
    max_spatial_tokens: int = field(default=512, metadata={"help": "Longest text of the objects, cut after an object."})
    max_caption_tokens: int = field(default=128, metadata={"help": "Longest caption, special tokens included."})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("mask_unit", self.mask_unit, ("item", "object"))
