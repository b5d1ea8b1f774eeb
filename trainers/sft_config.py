"""Training arguments of the second stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import SFTConfig

from .common.data_arguments import RowArguments, require_one_of
from .common.trainable_parts import TuningArguments

_WITHOUT_EFFECT = {  # option of TRL -> values that say what happens anyway, and what happens
    "completion_only_loss": ((None, True), "answers alone are learned, and the MQ-Former never reads them."),
    "pad_token": ((None,), "rows are padded with the pad token of the processor's tokenizer."),
    "dataset_text_field": (("text",), "rows are conversations, in messages, prompt and completion, or conversations."),
    "dataset_kwargs": ((None, {}, {"skip_prepare_dataset": True}), "rows are prepared when they are read."),
    "dataset_num_proc": ((None,), "rows are prepared when they are read, by dataloader_num_workers processes."),
    "shuffle_dataset": ((False,), "rows are shuffled anew in each epoch (train_sampling_strategy)."),
    "pad_to_multiple_of": (("auto", None, "none", "null"), "a batch is as long as its longest row."),
    "truncation_mode": (("keep_start",), "long conversations lose whole turns, as docs/stage2.md says."),
    "eval_packing": ((None, False), "images cannot be packed."),
}


@dataclass
class LyricsSFTConfig(TuningArguments, RowArguments, SFTConfig):  # pyright: ignore[reportIncompatibleVariableOverride]
    """TRL's `SFTConfig` for `LyricsSFTTrainer`, with trainable parts, LoRA, and the settings of the data."""

    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule after the warm-up."})
    warmup_steps: float = field(default=0.03, metadata={"help": "Warm-up steps; below 1, a fraction of all steps."})
    max_length: int | None = field(default=2048, metadata={"help": "Tokens to which long conversations are shortened."})
    box_units: str = field(default="relative", metadata={"help": "Boxes (xyxy): 'relative' in [0, 1], or 'pixel'."})
    flip: float = field(default=0.0, metadata={"help": "Probability that an image is flipped; text is not changed."})
    dataloader_drop_last: bool = field(default=False, metadata={"help": "Drop the last, smaller batch of an epoch."})
    crop: float = field(default=0.0, metadata={"help": "Probability that an image is cropped around its boxes."})

    def __post_init__(self) -> None:
        self._refuse_options_without_effect()
        super().__post_init__()
        require_one_of("box_units", self.box_units, ("relative", "pixel"))
        strategies = ("random", "sequential", "group_by_length")
        require_one_of("train_sampling_strategy", self.train_sampling_strategy, strategies)
        if self.packing or self.padding_free:
            raise ValueError("Images cannot be packed: set packing=False and padding_free=False.")

    def _refuse_options_without_effect(self) -> None:
        """Raise a `ValueError` for options of TRL that the collator of Lyrics does not follow."""
        for name, (values, reason) in _WITHOUT_EFFECT.items():
            if (value := getattr(self, name, values[0])) not in values:
                raise ValueError(f"{name}={value!r} has no effect here: {reason} Leave it out.")
