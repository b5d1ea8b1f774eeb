"""Base class of the Lyrics models: weight initialization, and loading of weights, quantizers and adapters."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from torch import nn
from transformers.utils.hub import resolve_revision

from .adapter_checks import check_adapter, check_adapter_keys, check_no_learned_prompt, reload_with_peft
from .checkpoint_files import HUB_KWARGS
from .checkpoint_model import NativeCheckpointModel
from .configuration_lyrics import LyricsConfig
from .published_checkpoint import DROPPED_BY_MODEL

_PARTS = ("vision_model", "mqformer", "language_projection")
FULL_PRECISION_PARTS = (
    "lm_head",
    *_PARTS,
    *(f"model.{part}" for part in _PARTS),
)  # matched from the start

_SKIP_LISTS = ("llm_int8_skip_modules", "modules_to_not_convert", "skip_modules")  # each method has one of these
_DEFAULTS = (None, [], ["lm_head"])


def exclude_vision_parts(quantization_config: Any) -> Any:
    """Add the parts outside the language model to the modules that a quantizer leaves alone.

    These parts are a few percent of the weights, and their errors affect every token. Transformers' quantizers would
    leave only `lm_head` alone.

    Args:
        quantization_config: quantization configuration of Transformers, or a dictionary of one. It is not changed.

    Returns:
        The changed copy; the given object where its list of modules is not the default.
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


class LyricsPreTrainedModel(NativeCheckpointModel):
    """Base class of the Lyrics models: weight initialization, and loading of weights, quantizers and adapters."""

    config_class = LyricsConfig
    config: LyricsConfig
    base_model_prefix = "model"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["LyricsMQFormerModel"]  # it is small, and its queries are parameters of its own
    _skip_keys_device_placement = ["cache"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _keys_to_ignore_on_load_unexpected = list(DROPPED_BY_MODEL)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load a model from a folder or from the Hub; a `quantization_config` applies to the language model alone.

        A `quantization_config` with its own list of modules to leave alone is used unchanged.
        """
        if kwargs.get("quantization_config") is not None:
            kwargs["quantization_config"] = exclude_vision_parts(kwargs["quantization_config"])
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save weights and configurations; settings of generation are saved so that edits of the file have an effect.

        Args:
            save_directory: folder of the checkpoint.
            args, kwargs: arguments of `NativeCheckpointModel.save_pretrained`.
        """
        settings: Any = getattr(self, "generation_config", None)
        if settings is not None:
            settings._from_model_config = False
        super().save_pretrained(save_directory, *args, **kwargs)

    def get_submodule(self, target: str) -> nn.Module:
        """Return a module by its name; a `ValueError` where PEFT would build a learned prompt around the model."""
        check_no_learned_prompt(target)
        return super().get_submodule(target)

    def enable_input_require_grads(self) -> None:
        """Let the language model's input embeddings require gradients, for activation checkpointing with an adapter.

        Transformers does so for the embeddings of every part: a frozen vision encoder, whose gradients nobody reads,
        would then run forward a second time, and backward.
        """

        def require_gradients(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            output.requires_grad_(True)

        hook = self.get_input_embeddings().register_forward_hook(require_gradients)
        self._require_grads_hook, self._require_grads_hooks = hook, [hook]

    def load_adapter(self, peft_model_id: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Load a PEFT adapter into the model.

        Raises:
            ValueError: a weight of the adapter is missing, unexpected or of another shape, or it was trained on another
                model.
        """
        where = _hub_arguments(peft_model_id, kwargs)
        if peft_model_id is not None:
            check_adapter(self, peft_model_id, **where)
        try:
            info = super().load_adapter(peft_model_id, *args, **kwargs)
        except RuntimeError as error:  # Transformers logs the shapes
            raise ValueError(
                f"The adapter {peft_model_id} cannot be loaded: weights have other shapes than its adapter_config.json "
                f"says, or a file is damaged ({error}). Copy it again."
            ) from error
        name = (args[0] if args else None) or kwargs.get("adapter_name") or "default"
        if peft_model_id is not None and getattr(self.peft_config[name], "use_dora", False):
            reload_with_peft(self, peft_model_id, name, **where)
            return info
        missing = [key for key in info.missing_keys if name in key.split(".")]
        check_adapter_keys(peft_model_id, missing, info.unexpected_keys)
        return info


def _hub_arguments(adapter: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return where an adapter comes from (`revision`, `token`, ...), of the arguments of `load_adapter`."""
    of_base = getattr(kwargs.get("load_config"), "download_kwargs", None) or {}
    given = {**of_base, **(kwargs.get("adapter_kwargs") or {}), **kwargs}
    given = {name: given[name] for name in (*HUB_KWARGS, "subfolder") if given.get(name) is not None}
    if "revision" in given:  # which Transformers has resolved to a commit of the base model
        options = {name: given[name] for name in ("token", "local_files_only", "cache_dir") if name in given}
        given["revision"] = resolve_revision(adapter, given["revision"], **options)
    return given
