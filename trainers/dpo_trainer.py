"""Preference tuning on TRL's `DPOTrainer`, which works on Lyrics as it is; here are complete checkpoints and adapters.

Pictures are refined by the processor in each batch, or looked up in its store: TRL passes on no further columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from .common.adapter_saving import SavesAdapters
from .common.checkpointing import CompleteCheckpoints
from .common.trainable_parts import TuningArguments, lora_config, set_trained_parts


@dataclass
class LyricsDPOConfig(TuningArguments, DPOConfig):
    """TRL's `DPOConfig`, and what is trained. By default LoRA alone: the connector is left as instruction made it."""

    max_length: int | None = field(
        default=None, metadata={"help": "TRL would cut pictures in half; there is no limit by default."}
    )
    train_mqformer: bool = field(default=False, metadata={"help": "Train the MQ-Former in full."})
    train_projection: bool = field(default=False, metadata={"help": "Train the projection in full."})


class LyricsDPOTrainer(CompleteCheckpoints, SavesAdapters, DPOTrainer):  # pyright: ignore[reportIncompatibleMethodOverride]
    """TRL's trainer on a `LyricsForConditionalGeneration`.

    Args:
        model: the model.
        args: `LyricsDPOConfig`.
        train_dataset, eval_dataset: of the `datasets` library, with `images`, `prompt`, `chosen` and `rejected`.
        processing_class: a `LyricsProcessor` with a refiner or a store.
        kwargs: of TRL's trainer.
    """

    args: LyricsDPOConfig

    def __init__(
        self,
        model: Any,
        args: LyricsDPOConfig,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        self.remember_base(model)
        set_trained_parts(model, args)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            peft_config=kwargs.pop("peft_config", None) or lora_config(args),
            **kwargs,
        )


def to_dataset(rows: Any) -> Dataset:
    """Rows of any kind as a data set of the `datasets` library, which TRL asks for."""
    if isinstance(rows, Dataset):
        return rows
    return Dataset.from_list([rows[index] for index in range(len(rows))])
