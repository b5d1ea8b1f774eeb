"""Which parts of a Lyrics a quantiser may touch: the language model alone, unless the caller says otherwise.

The vision encoder, the MQ-Former and the projection are a few percent of the weights, and what they lose is lost for
every token after them. Transformers' quantisers by themselves would spare nothing but `lm_head`.
"""

from __future__ import annotations

import copy
from typing import Any

_PARTS = ("vision_model", "mqformer", "language_projection")
FULL_PRECISION_PARTS = ("lm_head", *_PARTS, *(f"model.{part}" for part in _PARTS))  # names are matched from their start

_SKIP_LISTS = ("llm_int8_skip_modules", "modules_to_not_convert", "skip_modules")  # one of these per method
_DEFAULTS = (None, [], ["lm_head"])


def spare_vision_parts(quantization_config: Any) -> Any:
    """The configuration, with the parts outside the language model on its list of modules to leave alone.

    Args:
        quantization_config: one of Transformers' quantisation configurations, or a dictionary of one. It is not
            changed; one whose list is not the default is returned as it is.
    """
    if isinstance(quantization_config, dict):
        method = str(quantization_config.get("quant_method", ""))
        is_bitsandbytes = "bitsandbytes" in method or any(key.startswith("load_in_") for key in quantization_config)
        name = _SKIP_LISTS[0] if is_bitsandbytes else _SKIP_LISTS[2] if method == "hqq" else _SKIP_LISTS[1]
        if quantization_config.get(name) in _DEFAULTS:
            return quantization_config | {name: list(FULL_PRECISION_PARTS)}
        return quantization_config
    for name in _SKIP_LISTS:
        if getattr(quantization_config, name, "absent") in _DEFAULTS:
            quantization_config = copy.deepcopy(quantization_config)
            setattr(quantization_config, name, list(FULL_PRECISION_PARTS))
            break
    return quantization_config
