"""Settings of the second stage; LoRA's defaults are those of the published run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig

from .row_arguments import RowArguments, require_one_of

PARTS = ("vision_model", "mqformer", "projection", "language_model")


@dataclass
class LyricsSFTConfig(RowArguments, SFTConfig):
    """TRL's `SFTConfig` for `LyricsSFTTrainer`: what is trained, how LoRA is set, and how rows are read.

    By default the language model is tuned with LoRA on its query, key and value projections, and the MQ-Former and the
    projection are trained in full. (The published script meant to, and left its MQ-Former frozen by mistake:
    `train_mqformer=False` does the same.) `freeze` and `train` name parts beside these switches, and win over them.
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "The highest learning rate."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Shape of the learning rate after the warm-up."})
    warmup_steps: float = field(default=0.03, metadata={"help": "Steps of a rising learning rate; below 1, a share."})
    max_length: int | None = field(
        default=2048, metadata={"help": "Longer conversations lose text, never pictures, boxes or the last question."}
    )
    use_lora: bool = field(default=True, metadata={"help": "Tune the language model with LoRA."})
    lora_r: int = field(default=8, metadata={"help": "Rank of LoRA."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of LoRA."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout of LoRA."})
    lora_targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj"],
        metadata={"help": "Names of the language model's layers that LoRA tunes."},
    )
    load_in_4bit: bool = field(default=False, metadata={"help": "Hold the language model in 4 bits (QLoRA)."})
    train_vision_model: bool = field(default=False, metadata={"help": "Train the vision encoder."})
    train_mqformer: bool = field(default=True, metadata={"help": "Train the MQ-Former in full."})
    train_projection: bool = field(default=True, metadata={"help": "Train the projection in full."})
    train_language_model: bool = field(default=False, metadata={"help": "Train the language model in full; no LoRA."})
    freeze: list[str] = field(default_factory=list, metadata={"help": f"Parts not to train: {', '.join(PARTS)}."})
    train: list[str] = field(default_factory=list, metadata={"help": "Parts to train in full, of the same names."})
    box_units: str = field(
        default="relative", metadata={"help": "Of boxes in rows: 'relative' in [0, 1], or 'pixel'; xyxy."}
    )
    flip: float = field(default=0.0, metadata={"help": "Probability of flipping a picture; words stay as they are."})
    crop: float = field(default=0.0, metadata={"help": "Probability of cropping a picture around its boxes."})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("box_units", self.box_units, ("relative", "pixel"))
        for name in (*self.freeze, *self.train):
            require_one_of("a part to freeze or to train", name, PARTS)
        if both := set(self.freeze) & set(self.train):
            raise ValueError(f"{', '.join(sorted(both))}: to freeze and to train are both asked for.")
        if self.packing or self.padding_free:
            raise ValueError("Pictures are not packed: leave packing and padding_free off.")
        if self.trains("language_model"):
            self.use_lora = False

    def trains(self, part: str) -> bool:
        """Whether a part is trained in full."""
        return part in self.train or (part not in self.freeze and bool(getattr(self, f"train_{part}")))


def lora_config(args: LyricsSFTConfig) -> Any:
    """PEFT's configuration: LoRA on the language model alone, the connector in full beside it."""
    from peft import LoraConfig

    targets = "|".join(args.lora_targets)
    saved = {"vision_model": "vision_model", "mqformer": "mqformer", "projection": "language_projection"}
    return LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=rf".*language_model\..*\.({targets})",  # a list of names would hit all parts of the model
        modules_to_save=[module for part, module in saved.items() if args.trains(part)] or None,
        task_type="CAUSAL_LM",
    )
