"""Training arguments of the first stage; the defaults are those of BLIP-2, which the paper follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast, get_args

from transformers import TrainingArguments

from ..modeling_lyrics.modeling_lyrics_pretraining import Recomputation
from .common.data_arguments import RowArguments, require_one_of, require_shares
from .common.precision import PrecisionArguments

LARGE_BATCH = 32  # rows a device from which memory is saved; smaller batches rarely fill a GPU


@dataclass
class LyricsPretrainingArguments(PrecisionArguments, RowArguments, TrainingArguments):
    """`TrainingArguments` for `LyricsPretrainingTrainer`, with other defaults and the settings of the data.

    The learning rate rises in `warmup_steps` from a hundredth to 1e-4, and falls along a cosine to a tenth of that. All
    batches have the same size on every rank (`dataloader_drop_last`), as the contrastive loss over all ranks requires.
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=0.05, metadata={"help": "Decay of all weights except biases and norms."})
    adam_beta2: float = field(default=0.98, metadata={"help": "Beta2 of AdamW."})
    warmup_steps: float = field(default=2000, metadata={"help": "Warm-up steps; below 1, a fraction of all steps."})
    lr_scheduler_type: str = field(default="cosine_warmup_with_min_lr", metadata={"help": "Learning rate schedule."})
    lr_scheduler_kwargs: dict[str, Any] | str | None = field(
        default_factory=lambda: {"min_lr_rate": 0.1, "warmup_lr_rate": 0.01}, metadata={"help": "Its arguments."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Off: each step uses all weights."}
    )
    train_vision_model: bool = field(
        default=False, metadata={"help": "Train the vision encoder, which is else frozen."}
    )
    image_column: str = field(default="image", metadata={"help": "Column of the images."})
    caption_column: str = field(default="caption", metadata={"help": "Column of the captions."})
    mask_probability: float = field(default=0.15, metadata={"help": "Probability that an item of the text is masked."})
    caption_only_probability: float = field(
        default=0.0, metadata={"help": "Probability that contrast and matching see a caption without objects."}
    )
    mask_unit: str = field(default="item", metadata={"help": "'item' (a label or one coordinate) or 'object'."})
    max_spatial_tokens: int = field(default=512, metadata={"help": "Longest text of whole objects, in tokens."})
    max_caption_tokens: int = field(default=128, metadata={"help": "Longest caption in tokens, special ones included."})

    recompute: str = field(
        default="auto",
        metadata={
            "help": "What the backward pass computes again to save memory: none, feed_forward, matching, or auto "
            f"(feed_forward from {LARGE_BATCH} rows a device)."
        },
    )

    @property
    def recomputation(self) -> Recomputation:
        """What `recompute` means for this batch size; nothing where whole layers are (`gradient_checkpointing`)."""
        if self.gradient_checkpointing:
            return "none"
        if self.recompute == "auto":
            return "feed_forward" if self.per_device_train_batch_size >= LARGE_BATCH else "none"
        return cast(Recomputation, self.recompute)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("recompute", self.recompute, ("auto", *get_args(Recomputation)))
        require_shares(self, "mask_probability", "caption_only_probability")
        require_one_of("mask_unit", self.mask_unit, ("item", "object"))
        require_one_of("train_sampling_strategy", self.train_sampling_strategy, ("random", "sequential"))
