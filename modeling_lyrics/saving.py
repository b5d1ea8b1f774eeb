"""What every model of this package does when it is saved."""

from __future__ import annotations

import os
from typing import Any

from transformers import PreTrainedModel


class NativeCheckpointModel(PreTrainedModel):
    """A `PreTrainedModel` that is always saved in this package's own layout.

    Transformers writes a model back in the layout that it was loaded from, and a model whose class has a registered
    conversion in that conversion's source layout. Both would give files that nothing else can read.
    """

    def save_pretrained(
        self, save_directory: str | os.PathLike, *args: Any, save_original_format: bool = False, **kwargs: Any
    ) -> None:
        """As in Transformers, with `save_original_format=False` as the default."""
        super().save_pretrained(save_directory, *args, save_original_format=save_original_format, **kwargs)
