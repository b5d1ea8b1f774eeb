"""Silence for what other libraries print while they are imported and load weights.

It must run before torch and Transformers are imported. Errors still come out, and so do the warnings of this package.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings


def quiet_libraries() -> None:
    """Hide warnings of other libraries, and progress bars where standard error is no terminal.

    `PYTHONWARNINGS`, `TRANSFORMERS_VERBOSITY`, `HF_HUB_DISABLE_PROGRESS_BARS` and `HF_DATASETS_DISABLE_PROGRESS_BARS`
    of the environment win.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if not sys.stderr.isatty():
        for library in ("HF_HUB", "HF_DATASETS"):
            os.environ.setdefault(f"{library}_DISABLE_PROGRESS_BARS", "1")
    for name in ("torchao", "torch.utils._pytree", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
