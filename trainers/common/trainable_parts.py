"""What of a Lyrics model is tuned: LoRA on the language model, other parts in full, the rest frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments

from ...modeling_lyrics import LyricsForConditionalGeneration
from .data_arguments import require_one_of

PARTS = ("vision_model", "mqformer", "projection", "language_model")


@dataclass
class TuningArguments(TrainingArguments if TYPE_CHECKING else object):
    """Mixed in before a `TrainingArguments`: what is trained. LoRA's defaults are those of the published run.

    By default the language model is tuned with LoRA on its query, key and value projections, and the MQ-Former and the
    projection are trained in full. (The published script meant to, and left its MQ-Former frozen by mistake:
    `train_mqformer=False` does the same.) `freeze` and `train` name parts beside these switches, and win over them.
    """

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

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (*self.freeze, *self.train):
            require_one_of("a part to freeze or to train", name, PARTS)
        if both := set(self.freeze) & set(self.train):
            raise ValueError(f"{', '.join(sorted(both))}: to freeze and to train are both asked for.")
        if self.trains("language_model"):
            self.use_lora = False

    def trains(self, part: str) -> bool:
        """Whether a part is trained in full."""
        return part in self.train or (part not in self.freeze and bool(getattr(self, f"train_{part}")))


def lora_config(args: TuningArguments) -> Any:
    """PEFT's configuration: LoRA on the language model alone, the connector in full beside it; `None` without LoRA."""
    if not args.use_lora:
        return None
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


def load_model(name: str, args: TuningArguments) -> LyricsForConditionalGeneration:
    """Load the model to be tuned, its language model in 4 bits where `args` say so."""
    settings: dict[str, Any] = dict(getattr(args, "model_init_kwargs", None) or {})
    if args.bf16:
        settings.setdefault("dtype", torch.bfloat16)
    if args.load_in_4bit:
        from transformers import BitsAndBytesConfig

        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=settings.get("dtype", torch.float32)
        )
    return LyricsForConditionalGeneration.from_pretrained(name, **settings)


def set_trained_parts(model: Any, args: TuningArguments) -> None:
    """Switch gradients on for the parts that `args` train in full, and off for the others."""
    inner = model.model
    parts = {
        "vision_model": [inner.vision_model],
        "mqformer": [inner.mqformer],
        "projection": [inner.language_projection],
        "language_model": [inner.language_model, model.lm_head],
    }
    for part, modules in parts.items():
        for module in modules:
            for parameter in module.parameters():
                if parameter.is_floating_point():
                    parameter.requires_grad_(args.trains(part))


def describe_trained(model: Any) -> str:
    """How many parameters of each part, and of all, are trained; of either stage, with adapters or without."""
    counts: dict[str, tuple[int, int]] = {}
    every = list(model.named_parameters())
    for part in ("vision_model", "mqformer", "language_projection", "language_model", "lm_head", "all"):
        own = [(name, one) for name, one in every if part == "all" or f".{part}." in f".{name}"]
        total = sum(one.numel() for name, one in own if ".modules_to_save." not in name)
        counts[part] = sum(one.numel() for _, one in own if one.requires_grad), total
    lines = [f"  {part:20} {trained:>13,} of {total:,}" for part, (trained, total) in counts.items() if total]
    return "\n".join(["Trained parameters", *lines])
