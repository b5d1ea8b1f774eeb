"""Tuning a part of a Lyrics model with TRL, and saving the adapter in one self-describing directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer
from transformers.utils import logging

from ...modeling_lyrics import LyricsForConditionalGeneration
from ...modeling_lyrics.adapter_checks import mark_base, write_adapter_file
from ...processing_lyrics import LyricsProcessor
from .trainable_parts import TuningArguments, lora_config, set_trained_parts

if TYPE_CHECKING:
    from peft import PeftConfig

logger = logging.get_logger(__name__)


class TunedAdapterMixin(Trainer if TYPE_CHECKING else object):
    """Trainer mixin that tunes the parts that the arguments name, and saves how an adapter was made.

    It stands before a trainer of TRL. Beside the files of PEFT, an adapter's directory holds `lyrics_adapter.json`: its
    base model, the parts that were trained in full, and the training arguments.

    Args:
        model: Lyrics model to be tuned, without an adapter.
        args: arguments with the fields of `TuningArguments`.
        train_dataset: dataset, as the trainer takes it.
        eval_dataset: dataset or dictionary of datasets, as the trainer takes them.
        processing_class: `LyricsProcessor`; saved with the model, without its refiner.
        peft_config: PEFT configuration; by default `lora_config(args)`.
        kwargs: further arguments of the trainer (`callbacks`, `optimizers`, ...).
    """

    base_model_name: str | None
    base_mark: str

    def __init__(
        self,
        model: LyricsForConditionalGeneration,
        args: TuningArguments,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: LyricsProcessor | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        # Before PEFT changes the model and training changes its weights.
        self.base_model_name, self.base_mark = model.name_or_path, mark_base(model)
        if not self.base_model_name:
            logger.warning(
                "This model exists only in memory: it was not loaded from a directory. Save it with `save_pretrained` "
                "to keep it. Its adapter fits no other model, and cannot say where to find it."
            )
        set_trained_parts(model, args)
        tuned: dict[str, Any] = {"processing_class": processing_class, "peft_config": peft_config or lora_config(args)}
        super().__init__(
            model=model, args=args, train_dataset=train_dataset, eval_dataset=eval_dataset, **tuned, **kwargs
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save as in Transformers, and write `lyrics_adapter.json` beside an adapter."""
        super()._save(output_dir, state_dict)
        peft_configs: Any = getattr(self.model, "peft_config", None)
        if not self.args.should_save or peft_configs is None:
            return
        peft_config = peft_configs["default"]
        details = {
            "base_model": self.base_model_name,
            "base_revision": peft_config.revision,
            "base_mark": self.base_mark,
            "trained_parts": peft_config.modules_to_save or [],
            "arguments": json.loads(self.args.to_json_string()),
        }
        write_adapter_file(Path(output_dir or str(self.args.output_dir)), details)
