"""Settings of the first stage; defaults are BLIP-2's, which the paper follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments


@dataclass
class LyricsPretrainingArguments(TrainingArguments):
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
    dataloader_drop_last: bool = field(
        default=True, metadata={"help": "Leave out the last batch of an epoch where it is smaller than the others."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads the columns it needs."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "A loss that is not finite stops the run, so that nothing is filtered."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Every trained weight is used in each step."}
    )
    train_vision_model: bool = field(default=False, metadata={"help": "Train the vision encoder; else it is frozen."})
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "Speed up the way to a GPU, where there is one."}
    )
    image_column: str = field(default="image", metadata={"help": "Column of the pictures."})
    caption_column: str = field(default="caption", metadata={"help": "Column of the captions."})
    mask_probability: float = field(default=0.15, metadata={"help": "Of an item, in masked spatial prediction."})
    mask_unit: str = field(
        default="item", metadata={"help": "What is masked as one: an item (a label or a coordinate), or an object."}
    )
    max_spatial_tokens: int = field(default=512, metadata={"help": "Longest text of the objects, cut after an object."})
    max_caption_tokens: int = field(default=128, metadata={"help": "Longest caption, special tokens included."})
    on_bad_row: str = field(
        default="raise",
        metadata={
            "help": "At a row that cannot be used: 'raise' stops and names it; 'replace' names it and takes another."
        },
    )
    shuffle_block: int = field(default=256, metadata={"help": "Rows of a shard that are held and shuffled together."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in (("mask_unit", ("item", "object")), ("on_bad_row", ("raise", "replace"))):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {values}, got {getattr(self, name)!r}.")
        accelerator_config: Any = self.accelerator_config
        accelerator_config.dispatch_batches = False  # it would cut tensors whose first dimension is not the row
