"""LyricsSFTTrainer: TRL's trainer for the second stage, instruction tuning with LoRA and the connector."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers.utils import logging
from trl import SFTTrainer

from ..modeling_lyrics import LyricsForConditionalGeneration
from .common.adapter_saving import SavesAdapters
from .common.trainable_parts import describe_trained, load_model, lora_config, set_trained_parts
from .common.trainer_mixin import TrainsPreparedRows
from .data.augmentation import Augmentation
from .data.datasets import NOT_FOR_THE_MODEL, MapRows
from .data.length_sampler import GroupedByLength, measure_rows
from .sft_collator import LyricsSFTCollator
from .sft_config import LyricsSFTConfig

logger = logging.get_logger(__name__)

_SAMPLE = {"messages": [[{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]], "images": [[]]}


class LyricsSFTTrainer(TrainsPreparedRows, SavesAdapters, SFTTrainer):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Tunes a `LyricsForConditionalGeneration` on conversations.

    Args:
        model: the model, or where to load it from.
        args: `LyricsSFTConfig`.
        train_dataset: rows in TRL's forms or LLaVA's, see `read_conversation`: a map-style data set, a
            `datasets.IterableDataset` or a source of shards; streams need `max_steps`.
        eval_dataset: a map-style data set of such rows, or several by name.
        processing_class: a `LyricsProcessor`; saved with the model, without its refiner.
        data_collator: by default a `LyricsSFTCollator` with the settings of `args`.
        peft_config: instead of the one that `args` describe.
        kwargs: of TRL's trainer (`callbacks`, `optimizers`, ...).
    """

    args: LyricsSFTConfig

    def __init__(
        self,
        model: LyricsForConditionalGeneration | str,
        args: LyricsSFTConfig,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        data_collator: LyricsSFTCollator | None = None,
        peft_config: Any = None,
        **kwargs: Any,
    ) -> None:
        if processing_class is None:
            raise ValueError("LyricsSFTTrainer needs a processing_class (a LyricsProcessor).")
        if isinstance(model, str):
            model = load_model(model, args)
        self.collator = data_collator or build_collator(processing_class, args)
        self.remember_base(model)
        set_trained_parts(model, args)
        sample = Dataset.from_dict(_SAMPLE)  # TRL looks at rows to guess their form; ours are read by the collator
        super().__init__(
            model=model,  # pyright: ignore[reportArgumentType]
            args=args,
            data_collator=self.collator,  # pyright: ignore[reportArgumentType]
            train_dataset=sample,
            eval_dataset=None if eval_dataset is None else sample,
            processing_class=processing_class,
            peft_config=peft_config or lora_config(args),
            **kwargs,
        )
        self.train_dataset = self.prepare_rows(train_dataset, args, streams=True)
        self.eval_dataset = self.prepare_rows(eval_dataset, args)
        self._watch()
        if self.is_world_process_zero():
            logger.info(describe_trained(self.model))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """As in Transformers; rows are measured by their texts and the number of their pictures."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not isinstance(rows, MapRows):
            return super()._get_train_sampler(train_dataset)
        lengths = measure_rows(rows, self.collator.measure, self.args.length_column_name)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return GroupedByLength(rows, lengths, size, self.collator.seed)

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """As in TRL."""
        inputs = {name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in TRL, on rows that are not prepared yet as well."""
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            eval_dataset = self.prepare_rows(eval_dataset, self.args)
        rows: Any = eval_dataset
        return super().evaluate(rows, *args, **kwargs)


def build_collator(processor: Any, args: LyricsSFTConfig) -> LyricsSFTCollator:
    """The collator that `args` describe."""
    return LyricsSFTCollator(
        processor,
        max_length=args.max_length,
        seed=args.seed if args.data_seed is None else args.data_seed,
        box_units=args.box_units,  # pyright: ignore[reportArgumentType]
        augmentation=Augmentation(args.flip, args.crop),
    )
