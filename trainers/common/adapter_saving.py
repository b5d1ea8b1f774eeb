"""Adapters in one directory: PEFT's files, and beside them what they were made for and how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer
from transformers.utils import logging

from ...modeling_lyrics.adapter_checks import mark_base, write_adapter_file

logger = logging.get_logger(__name__)


class SavesAdapters(Trainer if TYPE_CHECKING else object):
    """Mixed in before a trainer that tunes a Lyrics model; its `__init__` calls `remember_base` before all else."""

    base_model_name: str
    base_mark: str

    def remember_base(self, model: Any) -> None:
        """Take the base model's name and mark, before anything is added to it or trained."""
        self.base_model_name, self.base_mark = model.name_or_path, mark_base(model)
        if not self.base_model_name:
            logger.warning(
                "This model was made in memory. Save it before it is lost: its adapter can only be loaded onto it, and "
                "does not know where it lies."
            )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As in Transformers; beside an adapter goes what it needs to be loaded, and how it was made."""
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
