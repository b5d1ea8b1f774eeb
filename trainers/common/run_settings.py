"""Settings that decide the course of a run: saved with its checkpoints, and compared before it resumes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainingArguments

# Fields of `TrainingArguments` that decide the course of a run. The number of steps is not among them: a run that ended
# may resume with more.
_COURSE = (
    "seed",
    "data_seed",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "optim",
    "optim_args",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "bf16",
    "fp16",
    "label_smoothing_factor",
    "neftune_noise_alpha",
    "train_sampling_strategy",
    "dataloader_drop_last",
)
_WITHOUT_EFFECT = {
    "on_bad_row",
    "image_column",
    "caption_column",
    "dtype",  # bf16 and fp16 say what came of it
    "recompute",
    "trust_remote_code",
    "activation_offloading",
    "base_model_id",
    "log_completions",
    "num_completions_to_print",
}
# what a PEFT configuration says of its files, and not of the adapter
_OF_ADAPTER_FILES = {"base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping"}


def describe_settings(trainer: Trainer) -> dict[str, Any]:
    """Return the settings of a run in JSON types: arguments, number of rows, mark of the base model, and adapter."""
    own = set(type(trainer.args).__dataclass_fields__) - set(TrainingArguments.__dataclass_fields__)
    arguments = trainer.args.to_dict()
    settings = {name: arguments[name] for name in (*_COURSE, *sorted(own - _WITHOUT_EFFECT)) if name in arguments}
    rows: Any = trainer.train_dataset
    settings["training rows"] = len(rows) if hasattr(rows, "__len__") else None
    settings["base model"] = getattr(trainer, "base_mark", None)
    settings |= _describe_adapter(trainer.model)
    return json.loads(json.dumps(settings, default=_as_json))


def _describe_adapter(model: Any) -> dict[str, Any]:
    """Return the settings of the adapter in training, by names that begin with `peft_config`."""
    config = (getattr(model, "peft_config", None) or {}).get("default")
    values = {} if config is None else config.to_dict()
    return {f"peft_config.{name}": value for name, value in values.items() if name not in _OF_ADAPTER_FILES}


def _as_json(value: Any) -> Any:
    """Return a value that JSON has no type for: a set in order, other values as text."""
    return sorted(value, key=str) if isinstance(value, set | frozenset) else str(value)


def compare_settings(saved: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Return the differences of two runs as words, empty if there are none; a setting of one alone does not count."""
    differences = [name for name in saved if name in own and saved[name] != own[name]]
    return ", ".join(
        f"{name} is {json.dumps(saved[name])} there and {json.dumps(own[name])} here" for name in differences
    )


def require_steps(args: TrainingArguments) -> None:
    """Raise a `ValueError` for a number of steps or epochs with which nothing would be trained."""
    if args.max_steps == 0 or args.max_steps < -1:
        raise ValueError(f"max_steps must be at least 1, or -1 for all epochs, got {args.max_steps}.")
    if args.max_steps == -1 and not 0 < args.num_train_epochs < math.inf:
        raise ValueError(f"num_train_epochs must be a positive number, got {args.num_train_epochs}.")


def require_a_batch(trainer: Trainer) -> None:
    """Raise a `ValueError` if the training rows fill no batch, so that nothing would be trained."""
    rows: Any = trainer.train_dataset
    if not hasattr(rows, "__len__"):
        return
    if len(rows) == 0:
        raise ValueError("There is no row to train on: train_dataset is empty.")
    size = trainer.args.train_batch_size * trainer.args.world_size
    if trainer.args.dataloader_drop_last and len(rows) < size:
        raise ValueError(
            f"There are {len(rows)} rows to train on, fewer than the {size} of a batch "
            f"({trainer.args.train_batch_size} x {trainer.args.world_size} processes), and smaller batches are dropped "
            "(dataloader_drop_last): nothing would be trained. Use more rows, or a smaller batch."
        )
