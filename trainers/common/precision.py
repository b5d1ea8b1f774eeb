"""Precision of a training run: chosen for the machine, and possible without a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers import TrainingArguments
from transformers.utils import logging
from transformers.utils.import_utils import is_torch_xla_available

from ...utils.native_dtype import native_dtype, processor_has_bfloat16

logger = logging.get_logger(__name__)

_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass
class PrecisionArguments(TrainingArguments if TYPE_CHECKING else object):
    """Mixin for a `TrainingArguments`: the precision by one name, and training on a processor without more options.

    Where there is no GPU, `use_cpu` is set, without which Transformers refuses bfloat16. TRL's default is bfloat16
    everywhere; here it is what the machine computes natively.
    """

    dtype: str | None = field(
        default=None,
        metadata={
            "help": "Precision of the computation, instead of bf16 and fp16: float32, bfloat16, float16, or auto for "
            "bfloat16 where this machine has it natively, else float32."
        },
    )

    def __post_init__(self) -> None:
        if not torch.accelerator.is_available() and not is_torch_xla_available():
            self.use_cpu = True
        self._choose_precision()
        try:
            super().__post_init__()
        except ValueError as error:
            if "bf16" not in str(error):
                raise
            raise ValueError(f"{error} Or let the machine decide: dtype=auto (--dtype auto).") from error

    def _choose_precision(self) -> None:
        """Set `bf16` and `fp16` from `dtype`, or `bf16` from the machine where nothing is said.

        Raises:
            ValueError: there is no such dtype.
        """
        device = "cpu" if self.use_cpu else "cuda" if torch.cuda.is_available() else None
        if self.dtype is not None:
            if self.dtype not in _DTYPES:
                raise ValueError(f"dtype must be one of {_DTYPES}, got {self.dtype!r}.")
            chosen = native_dtype(device) if self.dtype == "auto" else getattr(torch, self.dtype)
            self.bf16, self.fp16 = chosen is torch.bfloat16, chosen is torch.float16
        elif self.bf16 is None and not self.fp16 and device is not None:
            self.bf16 = native_dtype(device) is torch.bfloat16
        elif self.bf16 and self.use_cpu and not processor_has_bfloat16():
            logger.warning_once(
                "bf16 is on, and this processor has no instructions for it: float32 is faster here (--dtype auto)."
            )
