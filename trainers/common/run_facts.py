"""Facts of a training run for its model card, and the card of what a trainer saves."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from ...datasets_lyrics.catalog.registry import find_format
from ...datasets_lyrics.open_data import kind_of
from ...utils.model_card import (
    CARD,
    LOSSES_PICTURE,
    BaseModel,
    CardFacts,
    DataName,
    TrainingFacts,
    find_hub_id,
    write_card,
)
from ...utils.training_curves import draw_log
from .trainable_parts import describe_trained

logger = logging.get_logger(__name__)

# Settings of every stage, then those of one, in the order of the card's table.
_SETTINGS = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
)
_OF_A_STAGE = (
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_targets",
    "load_in_4bit",
    "max_length",
    "flip",
    "crop",
    "beta",
    "loss_type",
    "mask_probability",
    "mask_unit",
    "caption_only_probability",
    "max_spatial_tokens",
    "max_caption_tokens",
)
_OF_LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_targets")
_LOST_WITHOUT_NAME = "lyrics model"


def name_data(words: str | Sequence[str] | None) -> list[DataName]:
    """Return names of data that a card may show: what the user wrote, without folders and parameters of URLs.

    Args:
        words: word of the table in `open_data`, or several, or `None`.
    """
    words = [words] if isinstance(words, str) else list(words or ())
    return [_name_word(word) for word in words]


def _name_word(word: str) -> DataName:
    try:
        kind = kind_of(word)
    except (ValueError, OSError):  # of a caller who opened the data in another way
        kind = "hub" if find_hub_id(word) else "files"
    if kind in ("drawn", "hub"):
        return DataName(word, word if kind == "hub" and find_hub_id(word) else None, is_drawn=kind == "drawn")
    if kind == "catalog":  # NAME:ROOT; the name says more than the folder
        name, _, root = word.partition(":")
        is_known = find_format(name.partition("/")[0]).family != "your own"
        return DataName(name if is_known else f"{name}:{_last_part(root)}")
    if kind == "mixture" and not os.path.isfile(word):
        return DataName(word)
    return DataName(_last_part(word))


def _last_part(path: str) -> str:
    """Return the name of a file or folder, without its folders and the parameters of a URL; never that of the user."""
    path = path.partition("?")[0].replace("\\", "/").rstrip("/")
    name = os.path.basename(path if "://" in path else os.path.abspath(os.path.expanduser(path)))
    return "files" if name in ("", os.path.basename(os.path.expanduser("~"))) else name


def describe_run(trainer: Any, is_checkpoint: bool = False) -> TrainingFacts:
    """Return what a trainer knows of its run until now.

    Args:
        trainer: trainer with `stage_name`.
        is_checkpoint: bool, whether the weights are those of this step; else of the best one, where `args` ask for it.
    """
    state, args = trainer.state, trainer.args
    has_best = args.load_best_model_at_end and not is_checkpoint
    rows = trainer.train_dataset
    return TrainingFacts(
        stage=trainer.stage_name,
        data=name_data(trainer.training_data),
        evaluation_data=name_data(trainer.evaluation_data),
        rows=len(rows) if hasattr(rows, "__len__") else None,
        settings=_list_settings(trainer, args),
        trained=describe_trained(trainer.model),
        steps=state.global_step,
        epochs=state.epoch or None,
        seconds=trainer.training_seconds,
        hardware=describe_hardware(args),
        log=state.log_history,
        weights_step=state.best_global_step if has_best else None,
    )


def describe_hardware(args: TrainingArguments) -> str:
    """Return the number and the kind of the devices of a run."""
    device = args.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return f"{args.world_size} x {name}" if args.world_size > 1 or device.type == "cuda" else f"one {name}"


def _list_settings(trainer: Trainer, args: Any) -> dict[str, Any]:
    """Return the hyper-parameters of a run."""
    values = args.to_dict()
    factors = (args.per_device_train_batch_size, args.gradient_accumulation_steps, args.world_size)
    settings: dict[str, Any] = {
        "rows of a step": "{} = {} x {} accumulated x {} processes".format(math.prod(factors), *factors),
        "steps" if args.max_steps > 0 else "epochs": args.max_steps if args.max_steps > 0 else args.num_train_epochs,
        "optimizer": values["optim"],
        "betas": [args.adam_beta1, args.adam_beta2],
        "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        "seed": args.seed,
    }
    has_lora = getattr(trainer.model, "peft_config", None) is not None
    for name in (*_SETTINGS, *_OF_A_STAGE):
        if values.get(name) in (None, "", {}) or (name in _OF_LORA and not has_lora):
            continue
        settings[name] = values[name]
    weights: Any = getattr(getattr(trainer.model, "config", None), "loss_weights", None)
    return settings | ({"weights of the losses": weights()} if callable(weights) else {})


def write_run_card(trainer: Any, folder: Path, present: Path | None) -> None:
    """Write the card of a model or checkpoint that a trainer has saved, and the image of its losses.

    Args:
        trainer: trainer with `stage_name`.
        folder: folder with all other files.
        present: card of an earlier model in the same place, which is refreshed, or left alone if a person wrote it;
            `None` for a checkpoint.
    """
    (folder / CARD).unlink(missing_ok=True)  # PEFT's template
    if present is not None and sum("loss" in entry for entry in trainer.state.log_history) > 1:
        try:
            draw_log(trainer.state.log_history, folder / LOSSES_PICTURE)
        except ImportError:
            logger.info("The model card gets no image of the losses: matplotlib is not installed.")
    is_adapter = (folder / "adapter_config.json").is_file()
    bases = trainer.base_models()
    facts = CardFacts(
        name=name_run(trainer.args),
        bases=bases,
        relation=("adapter" if is_adapter else "finetune") if bases else None,
        origin=f"It was trained with the package `ziya-lyrics`: {trainer.stage_name}.",
        training=describe_run(trainer, is_checkpoint=present is None),
        config=_configuration_of(getattr(trainer.model, "get_base_model", lambda: trainer.model)()),
        refiner=_refiner_of(trainer.processing_class),
    )
    write_card(folder, facts, present=present)


def _configuration_of(model: Any) -> dict[str, Any]:
    """Return the configuration of a model, of which an adapter's folder says nothing."""
    return model.config.to_dict()


def _refiner_of(processor: Any) -> dict[str, Any]:
    """Return the configuration of the refiner that objects came from; empty where it is not known."""
    config = getattr(processor, "refiner_config", None)
    return {} if config is None else config.to_dict()


def name_run(args: TrainingArguments) -> str:
    """Return the name of a run's model: that of its repository, or of its folder."""
    name = getattr(args, "hub_model_id", None) or Path(str(args.output_dir)).absolute().name
    return name.split("/")[-1] or _LOST_WITHOUT_NAME


def find_bases(*parts: tuple[str, str | None]) -> list[BaseModel]:
    """Return the base models of a run, without parts that were built and not loaded.

    Args:
        parts: tuples of a role and the place that the part was loaded from.
    """
    return [BaseModel.find(place, role) for role, place in parts if place]
