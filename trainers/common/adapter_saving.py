"""Tuning a part of a Lyrics model with TRL, and saving the adapter in one self-describing directory."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer
from transformers.utils import logging

from ...modeling_lyrics import LyricsForConditionalGeneration
from ...modeling_lyrics.adapter_checks import mark_base, write_adapter_file
from ...processing_lyrics import LyricsProcessor
from ...utils.model_card import BaseModel, find_hub_id, is_hub_id
from ...utils.published_files import without_machine
from .adapter_training import (
    ADAPTER,
    complete_peft_config,
    continue_adapter,
    freeze_untrained_parts,
    has_adapter,
)
from .run_facts import find_bases, name_data
from .trainable_parts import TuningArguments, load_model, lora_config, set_trained_parts, settle_router_loss

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

logger = logging.get_logger(__name__)


def require_base_id(base_model: str | None, base_model_id: str | None) -> None:
    """Check that readers of an adapter can find its base model on the Hub.

    Raises:
        ValueError: it is a folder or exists in memory only, and no Hub id is given for it; or the id is none.
    """
    if base_model_id is not None and not is_hub_id(base_model_id):
        raise ValueError(f"base_model_id must be a Hub id (OWNER/NAME), got {base_model_id!r}.")
    if base_model_id is None and find_hub_id(base_model) is None:
        raise ValueError(
            f"push_to_hub uploads an adapter, and its base model is not on the Hub ({base_model or 'in memory'}): push "
            "the base model first (`lyrics push DIR OWNER/NAME`), and give its id as base_model_id."
        )


class TunedAdapterMixin(Trainer if TYPE_CHECKING else object):
    """Trainer mixin that tunes the parts that the arguments name, and saves how an adapter was made.

    It stands before a trainer of TRL. Beside the files of PEFT, an adapter's directory holds `lyrics_adapter.json`: its
    base model, the parts that were trained in full, the names of the data, and the training arguments.

    Args:
        model: Lyrics model to be tuned, or its directory or Hub id. If it has an adapter, as a `PeftModel` or by
            `from_pretrained` of an adapter's directory, that adapter is trained further.
        args: arguments with the fields of `TuningArguments`.
        train_dataset: dataset, as the trainer takes it.
        eval_dataset: dataset or dictionary of datasets, as the trainer takes them.
        processing_class: `LyricsProcessor`; saved with the model, without its refiner.
        peft_config: PEFT configuration of a new adapter; by default `lora_config(args)`. It also trains the parts that
            `args` train in full.
        kwargs: further arguments of the trainer (`callbacks`, `optimizers`, ...).

    Raises:
        ValueError: if the model's adapter, `peft_config` and `args` contradict each other.
    """

    args: TuningArguments
    base_model_name: str | None
    base_mark: str

    def __init__(
        self,
        model: LyricsForConditionalGeneration | PeftModel | str | os.PathLike[str],
        args: TuningArguments,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: LyricsProcessor | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, TuningArguments):
            raise TypeError(
                f"args is a {type(args).__name__}, and {type(self).__name__} needs the Lyrics class of the same fields "
                "(LyricsSFTConfig, LyricsDPOConfig or LyricsGRPOConfig)."
            )
        if isinstance(model, str | os.PathLike):
            model = load_model(os.fspath(model), args, kwargs.pop("quantization_config", None))
        base: Any = model if isinstance(model, LyricsForConditionalGeneration) else model.get_base_model()
        settle_router_loss(base, args)
        if os.path.isdir(base.name_or_path):  # so that the adapter is loaded from any folder
            base.name_or_path = os.path.abspath(base.name_or_path)
        # Before PEFT changes the model and training changes its weights.
        self.base_model_name, self.base_mark = base.name_or_path, mark_base(model)
        if not self.base_model_name:
            logger.warning(
                "This model exists only in memory: it was not loaded from a directory. Save it with `save_pretrained` "
                "to keep it. Its adapter fits no other model, and cannot say where to find it."
            )
        continues = has_adapter(model)
        if continues and peft_config is not None:
            raise ValueError(
                "The model has an adapter, and peft_config describes another one: leave peft_config out to train the "
                "adapter further, or merge it into the model first."
            )
        if continues:
            model = continue_adapter(model, args)
        else:
            set_trained_parts(base, args)
            peft_config = lora_config(args, base) if peft_config is None else complete_peft_config(peft_config, args)
        tuned: dict[str, Any] = {"processing_class": processing_class, "peft_config": peft_config}
        if args.push_to_hub and (continues or peft_config is not None):
            require_base_id(self.base_model_name, args.base_model_id)
        super().__init__(
            model=model,  # pyright: ignore[reportArgumentType]
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            **tuned,
            **kwargs,
        )
        if continues:
            freeze_untrained_parts(self.model, args)  # pyright: ignore[reportArgumentType]

    def base_models(self) -> list[BaseModel]:
        """Return the base model, under the Hub id that the arguments give it."""
        bases = find_bases(("base model", self.base_model_name))
        base_id = self.args.base_model_id
        return [replace(bases[0], hub_id=base_id)] if bases and base_id else bases

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save as in Transformers, and write `lyrics_adapter.json` beside an adapter."""
        super()._save(output_dir, state_dict)
        peft_configs: Any = getattr(self.model, "peft_config", None)
        if not self.args.should_save or peft_configs is None:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        for name in set(peft_configs) - {ADAPTER}:  # the reference that TRL copies from the adapter
            shutil.rmtree(folder / name, ignore_errors=True)
        peft_config = peft_configs[ADAPTER]
        details = {
            "base_model": self.base_model_name,
            "base_revision": peft_config.revision,
            "base_mark": self.base_mark,
            "trained_parts": peft_config.modules_to_save or [],
            "training_data": [one.name for one in name_data(getattr(self, "training_data", None))],
            "arguments": without_machine(json.loads(self.args.to_json_string())),
        }
        write_adapter_file(folder, details)
