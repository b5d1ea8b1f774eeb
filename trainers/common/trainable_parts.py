"""Trainable parts of a Lyrics model: LoRA on the language model, other parts in full, the rest frozen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from ...modeling_lyrics import LyricsForConditionalGeneration
from .adapter_training import PARTS, load_adapted_model
from .data_arguments import require_one_of
from .precision import PrecisionArguments
from .run_settings import require_steps

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

logger = logging.get_logger(__name__)

_QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj")
_LATENT = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")  # of DeepSeek's latent attention
_FUSED = ("query_key_value", "qkv_proj", "Wqkv", "c_attn", "in_proj")  # of models with one layer for all three


@dataclass
class TuningArguments(PrecisionArguments):
    """Mixin for a `TrainingArguments`: which parts are trained, and how. LoRA defaults are those of the published run.

    By default, LoRA tunes the query, key and value projections of the language model, and the MQ-Former and the
    projection are trained in full. The published script froze its MQ-Former by mistake; `train_mqformer=False` does the
    same. `freeze` and `train` name parts and override the switches.
    """

    use_lora: bool = field(default=True, metadata={"help": "Tune the language model with LoRA."})
    lora_r: int = field(default=8, metadata={"help": "Rank of LoRA."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of LoRA."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout of LoRA."})
    lora_targets: list[str] = field(
        default_factory=lambda: list(_QUERY_KEY_VALUE),
        metadata={"help": "Names of the language model's layers that LoRA tunes; by default query, key and value."},
    )
    load_in_4bit: bool = field(default=False, metadata={"help": "Load the language model in 4 bits (QLoRA)."})
    train_vision_model: bool = field(default=False, metadata={"help": "Train the vision encoder in full."})
    train_mqformer: bool = field(default=True, metadata={"help": "Train the MQ-Former in full."})
    train_projection: bool = field(default=True, metadata={"help": "Train the projection in full."})
    train_language_model: bool = field(default=False, metadata={"help": "Train the language model in full; no LoRA."})
    freeze: list[str] = field(default_factory=list, metadata={"help": f"Parts to freeze: {', '.join(PARTS)}."})
    base_model_id: str | None = field(
        default=None,
        metadata={"help": "Hub id of the base model, where `model` is a directory; needed to publish an adapter."},
    )
    train: list[str] = field(default_factory=list, metadata={"help": "Parts to train in full, of the same names."})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_steps(self)
        for name in (*self.freeze, *self.train):
            require_one_of("a part to freeze or to train", name, tuple(PARTS))
        if both := set(self.freeze) & set(self.train):
            raise ValueError(f"{', '.join(sorted(both))}: a part cannot be both in `freeze` and in `train`.")
        if self.trains("language_model"):
            self.use_lora = False

    def trains(self, part: str) -> bool:
        """Return whether a part is trained in full."""
        return part in self.train or (part not in self.freeze and bool(getattr(self, f"train_{part}")))


def lora_config(args: TuningArguments, model: torch.nn.Module | None = None) -> LoraConfig | None:
    """Return PEFT's configuration: LoRA on the language model, other parts in full; `None` without LoRA.

    Args:
        args: training arguments.
        model: `LyricsForConditionalGeneration` whose layers `lora_targets` must name; not checked by default.

    Raises:
        ValueError: the language model has no such layers.
    """
    if not args.use_lora:
        return None
    from peft import LoraConfig

    names = args.lora_targets if model is None else find_lora_targets(model, args.lora_targets)
    targets = "|".join(names)
    saved = [name.removeprefix("model.") for part, names in PARTS.items() if args.trains(part) for name in names]
    return LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=rf".*language_model\..*\.({targets})",  # a list of names would match all parts of the model
        modules_to_save=saved or None,  # never the language model: training it in full disables LoRA
        task_type="CAUSAL_LM",
    )


def find_lora_targets(model: torch.nn.Module, wanted: Sequence[str]) -> list[str]:
    """Return the names of the language model's layers that LoRA tunes.

    Args:
        model: `LyricsForConditionalGeneration`.
        wanted: sequence of names. In place of the default, models that compute queries, keys and values in one layer,
            or in several steps, get the names of those.

    Raises:
        ValueError: the language model has no layer of a name; the message lists those that it has.
    """
    layers = model.get_submodule("model.language_model").named_modules()
    names = {name.rpartition(".")[2] for name, layer in layers if isinstance(layer, torch.nn.Linear | Conv1D)}
    found = [name for name in wanted if name in names]
    if tuple(wanted) == _QUERY_KEY_VALUE:
        found += [name for name in _LATENT if name in names]
        found = found or [name for name in _FUSED if name in names]
        missing = [] if found else wanted
    else:
        missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(
            f"lora_targets: this language model has no layer named {', '.join(missing)}; its layers are "
            f"{', '.join(sorted(names))}."
        )
    return found


def load_model(
    name: str, args: TuningArguments, quantization_config: Any = None
) -> LyricsForConditionalGeneration | PeftModel:
    """Load the model to be tuned, or an adapter to be tuned further with its base model.

    Args:
        name: folder or Hub id.
        args: training arguments; `load_in_4bit` loads the language model in 4 bits.
        quantization_config: quantization of the language model instead.
    """
    settings: dict[str, Any] = dict(getattr(args, "model_init_kwargs", None) or {})
    if args.bf16:
        settings.setdefault("dtype", torch.bfloat16)
    if args.load_in_4bit and quantization_config is None:
        from transformers import BitsAndBytesConfig

        quantization_config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=settings.get("dtype", torch.float32)
        )
    if quantization_config is not None:
        settings["quantization_config"] = quantization_config
    is_model = os.path.isfile(os.path.join(name, "config.json"))  # Transformers loads an adapter beside it as well
    adapted = None if is_model else load_adapted_model(name, args, **settings)
    return LyricsForConditionalGeneration.from_pretrained(name, **settings) if adapted is None else adapted


def settle_router_loss(model: LyricsForConditionalGeneration, args: Any) -> None:
    """Turn the loss that balances experts off where TRL cannot compute it, unless a coefficient is asked for.

    TRL counts the experts by `num_experts` of the language model's configuration, which Granite's and Phi's do not
    have. It needs a layer with experts, and the small models of a family may have none.

    Args:
        model: model to be tuned.
        args: arguments of the training; `router_aux_loss_coef` is set.

    Raises:
        ValueError: a coefficient is asked for, and there is no such loss.
    """
    text_config, coefficient = model.config.text_config, args.router_aux_loss_coef
    if not getattr(text_config, "router_aux_loss_coef", None) or coefficient == 0.0:
        return
    language_model: Any = model.get_submodule("model.language_model")
    recorders = (getattr(language_model, "_can_record_outputs", None) or {}).get("router_logits", ())
    recorders = recorders if isinstance(recorders, list | tuple) else (recorders,)
    routers = tuple(getattr(one, "target_class", one) for one in recorders)
    if hasattr(text_config, "num_experts") and any(isinstance(one, routers) for one in language_model.modules()):
        return
    reason = f"TRL cannot compute the loss that balances the experts of this {text_config.model_type}"
    if coefficient is not None:
        raise ValueError(f"{reason}: leave router_aux_loss_coef out, got {coefficient}.")
    logger.warning(f"{reason}: it is left out (router_aux_loss_coef=0).")
    args.router_aux_loss_coef = 0.0


def set_trained_parts(model: LyricsForConditionalGeneration, args: TuningArguments) -> None:
    """Enable gradients of the parts that `args` train in full, and disable those of all others."""
    for part, names in PARTS.items():
        for name in names:
            for parameter in model.get_submodule(name).parameters():
                if parameter.is_floating_point():  # unlike the packed weights of a quantized layer
                    parameter.requires_grad_(args.trains(part))


def describe_trained(model: torch.nn.Module) -> str:
    """Return a table of trained and total parameters by part, for a model of either stage, with or without adapter."""
    counts: dict[str, tuple[int, int]] = {}
    parameters = list(model.named_parameters())
    for part in ("vision_model", "mqformer", "language_projection", "language_model", "lm_head", "all"):
        own = [(name, one) for name, one in parameters if part == "all" or f".{part}." in f".{name}"]
        total = sum(one.numel() for name, one in own if ".modules_to_save." not in name)
        counts[part] = sum(one.numel() for _, one in own if one.requires_grad), total
    lines = [f"  {part:20} {trained:>13,} of {total:,}" for part, (trained, total) in counts.items() if total]
    return "\n".join(["Trained parameters", *lines])
