"""LyricsSFTTrainer: TRL's trainer for the second stage, instruction tuning with LoRA and the connector."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers.utils import logging
from trl import SFTTrainer

from ..modeling_lyrics import LyricsForConditionalGeneration
from ..processing_lyrics import LyricsProcessor
from .common.adapter_saving import TunedAdapterMixin
from .common.trainable_parts import describe_trained
from .common.trainer_mixin import PreparedRowsMixin
from .data.augmentation import Augmentation
from .data.datasets import MapRows
from .data.length_sampler import GroupedByLength, measure_rows
from .data.source_losses import losses_of_mixture
from .sft_collator import LyricsSFTCollator
from .sft_config import LyricsSFTConfig

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

logger = logging.get_logger(__name__)

IGNORE_INDEX = -100

_SAMPLE = {"messages": [[{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]], "images": [[]]}


class LyricsSFTTrainer(PreparedRowsMixin, TunedAdapterMixin, SFTTrainer):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Trainer of the second stage: instruction tuning of a `LyricsForConditionalGeneration` on conversations.

    It is TRL's `SFTTrainer` with Lyrics' own data path. Rows may hold several images or none, and boxes; the MQ-Former
    reads questions and never answers. By default LoRA tunes the language model, and the MQ-Former and the projection
    are trained in full. Checkpoints are complete or absent, a resumed run is the uninterrupted one bit for bit, and a
    loss that is not finite stops the run before the optimizer uses it.

    Args:
        model: model to be tuned, or its directory or Hub id. If it has an adapter, as a `PeftModel` or by
            `from_pretrained` of an adapter's directory, that adapter is trained further.
        args: training arguments; by default `LyricsSFTConfig("MODEL-SFT")` with the name of the model.
        train_dataset: map-style dataset, `Mixture`, `datasets.IterableDataset` or `ShardSource` of rows, in TRL's forms
            or LLaVA's (see `read_conversation`). Streams need `max_steps`. The losses of a mixture's data sets are
            logged one by one.
        eval_dataset: map-style dataset of such rows, or a dictionary of several.
        processing_class: processor; saved with the model, without its refiner.
        data_collator: collator; by default a `LyricsSFTCollator` with the settings of `args`.
        peft_config: PEFT configuration of a new adapter; by default `lora_config(args)`. It also trains the parts that
            `args` train in full.
        kwargs: further arguments of TRL's trainer (`callbacks`, `optimizers`, ...).

    Raises:
        ValueError: if there is no `processing_class`, `eval_dataset` is a stream, or the model's adapter,
            `peft_config` and `args` contradict each other.

    Examples:
        Train the micro model of the package for two steps on conversations about drawn shapes. The processor's refiner
        finds the objects of the images.

        >>> import tempfile
        >>> from lyrics import MICRO_CHECKPOINT, LyricsProcessor, LyricsSFTConfig, LyricsSFTTrainer
        >>> from lyrics.assets import ShapeChats
        >>> chats = ShapeChats(4)
        >>> rows = [{"images": chats[index]["images"], "messages": chats[index]["messages"]} for index in range(4)]
        >>> folder = tempfile.mkdtemp()
        >>> args = LyricsSFTConfig(folder, per_device_train_batch_size=2, max_steps=2, bf16=False, report_to=[])
        >>> processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
        >>> trainer = LyricsSFTTrainer(MICRO_CHECKPOINT, args, rows, processing_class=processor)
        >>> trainer.train().global_step  # doctest: +ELLIPSIS
        {'train_runtime': ...
        2
    """

    stage_name = "instruction tuning (second stage)"
    args: LyricsSFTConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    collator: LyricsSFTCollator
    _label_rows: torch.Tensor | None = None  # row of each labeled position of the micro-batch, where only these run

    def __init__(
        self,
        model: LyricsForConditionalGeneration | PeftModel | str | os.PathLike[str],
        args: LyricsSFTConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: LyricsProcessor | None = None,
        data_collator: LyricsSFTCollator | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        if processing_class is None:
            raise ValueError("LyricsSFTTrainer needs a processing_class (a LyricsProcessor).")
        if args is None:
            name = os.fspath(model) if isinstance(model, str | os.PathLike) else str(model.name_or_path)
            args = LyricsSFTConfig(f"{os.path.basename(os.path.normpath(name)) or 'lyrics'}-SFT")
        if not isinstance(args, LyricsSFTConfig):
            raise TypeError(
                f"args is a {type(args).__name__}, and LyricsSFTTrainer needs a LyricsSFTConfig of the same fields."
            )
        if kwargs.pop("formatting_func", None) is not None:
            raise ValueError(
                "formatting_func has no effect here: rows are conversations, which the processor's chat template "
                "formats. Leave it out, and convert the rows."
            )
        self.collator = data_collator or LyricsSFTCollator(
            processing_class,
            max_length=args.max_length,
            seed=args.row_seed,
            box_units=args.box_units,  # pyright: ignore[reportArgumentType]
            augmentation=Augmentation(args.flip, args.crop),
        )
        sample = Dataset.from_dict(_SAMPLE)  # TRL looks at rows to guess their form; the collator reads ours
        super().__init__(
            model=model,
            args=args,
            data_collator=self.collator,
            train_dataset=sample,
            eval_dataset=None if eval_dataset is None else sample,
            processing_class=processing_class,
            peft_config=peft_config,
            **kwargs,
        )
        self.train_dataset = self.prepare_rows(train_dataset, args, streams=True)
        tuned: Any = self.model
        self._losses = losses_of_mixture(train_dataset, self.accelerator.device)
        if self._losses is not None:
            if args.train_sampling_strategy == "group_by_length":
                raise ValueError(
                    "A mixture has other rows in each epoch, so that they cannot be grouped by length: set "
                    "train_sampling_strategy=random."
                )
            tuned.register_forward_hook(self._record_losses)
        self.eval_dataset = self.prepare_rows(eval_dataset, args)
        self._watch()
        if self.is_world_process_zero():
            logger.info(describe_trained(tuned))

    def compute_loss(
        self, model: torch.nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the loss as TRL does; on a CPU the head, too, computes the labeled positions alone.

        TRL leaves the other positions out only where Triton runs. Most positions of a batch have no label: images,
        questions and padding.
        """
        self._label_rows = None
        needs_all = return_outputs or self.compute_loss_func is not None or self.label_smoother is not None
        labels = inputs.get("labels")
        if not needs_all and labels is not None and labels.device.type == "cpu" and "shift_labels" not in inputs:
            inputs, self._label_rows = keep_labeled(inputs)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _record_losses(self, model: torch.nn.Module, _: Any, outputs: Any) -> None:
        """Record the losses of a micro-batch by data set; a forward hook, as TRL returns its outputs to nobody."""
        log_probs = getattr(outputs, "log_probs", None)  # of TRL's fused head alone
        if model.training and self._losses is not None and self._sources and log_probs is not None:
            mask = outputs.label_mask
            terms = torch.stack([-log_probs.detach() * mask, mask], dim=-1).double()  # (B, L, 2), or (1, K, 2)
            if self._label_rows is None:
                rows = terms.sum(1)
            else:
                rows = terms.new_zeros(len(self._sources), 2).index_add(0, self._label_rows, terms[0])
            self._losses.add(self._sources, rows)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as in TRL; for a mixture also the loss of each data set (`loss_NAME`), a mean over tokens."""
        if "loss" in logs and self._losses is not None:
            logs = {**logs, **self._losses.pop(self.accelerator)}
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        """Return the sampler of Transformers, but group rows by the length that the collator measures."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not isinstance(rows, MapRows):
            return super()._get_train_sampler(train_dataset)
        lengths = measure_rows(rows, self.collator.measure, self.args.length_column_name)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return GroupedByLength(rows, lengths, size, self.collator.seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler | None:
        """Return the sampler of Transformers for rows in their order: it cannot measure rows to group them."""
        strategy, self.args.train_sampling_strategy = self.args.train_sampling_strategy, "random"
        try:
            return super()._get_eval_sampler(eval_dataset)
        finally:
            self.args.train_sampling_strategy = strategy


def keep_labeled(inputs: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
    """Replace the labels of a batch by the labeled positions, which the model then returns alone.

    Args:
        inputs: batch with `labels`, int64 (B, L), -100 where there is no loss.

    Returns:
        The batch with `kept_positions` and `shift_labels`, the tokens after them (1, K), in place of `labels`; and the
        row of each, int64 (K,). A batch without any label keeps one position, without label, so that there is a
        gradient graph.
    """
    labels = inputs["labels"]
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX).flatten()
    positions = (following != IGNORE_INDEX).nonzero()[:, 0]
    if not len(positions):
        positions = positions.new_tensor([labels.shape[1] - 1])
    batch = {name: value for name, value in inputs.items() if name != "labels"}
    batch |= {"kept_positions": positions, "shift_labels": following[positions][None]}
    return batch, positions // labels.shape[1]
