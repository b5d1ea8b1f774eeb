"""Further training of adapters that a model already has, and the parts that an adapter trains in full."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import logging

from ...modeling_lyrics.adapter_checks import find_base_model, load_peft_model
from ...processing_lyrics.processor_checks import HUB_KWARGS

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

    from ...modeling_lyrics import LyricsForConditionalGeneration

logger = logging.get_logger(__name__)

PARTS = {  # name in the arguments -> modules
    "vision_model": ("model.vision_model",),
    "mqformer": ("model.mqformer",),
    "projection": ("model.language_projection",),
    "language_model": ("model.language_model", "lm_head"),
}
ADAPTER = "default"  # the only name whose files PEFT writes to the root of a folder
_LORA_ARGUMENTS = {"lora_r": "r", "lora_alpha": "lora_alpha"}


def has_adapter(model: torch.nn.Module) -> bool:
    """Return whether a model has an adapter, as a `PeftModel` or inside its layers."""
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    return isinstance(model, PeftModel) or any(isinstance(module, BaseTunerLayer) for module in model.modules())


def complete_peft_config(config: PeftConfig, args: Any) -> PeftConfig:
    """Return a copy of a PEFT configuration that also trains the parts that the arguments train in full.

    Raises:
        ValueError: if the configuration trains a part that the arguments do not.
    """
    if not args.use_lora:
        raise ValueError(
            "The arguments train no adapter (use_lora=False, or the whole language model): leave peft_config out."
        )
    for part in PARTS:
        if not args.trains(part) and _saves(config, part):
            raise ValueError(
                f"peft_config trains the {part} in full (modules_to_save), and the arguments do not: add {part!r} to "
                "`train`, or take it out of modules_to_save."
            )
    return _with_trained_parts(config, args)


def load_adapted_model(name: str, args: Any, **settings: Any) -> PeftModel | None:
    """Load an adapter and its base model for further training, or return `None` if there is no adapter.

    Args:
        name: folder or Hub id.
        args: arguments with the fields of `TuningArguments`.
        settings: arguments of the base model's `from_pretrained`; those about files apply to the adapter.

    Raises:
        ValueError: if the adapter is incomplete, or the arguments contradict its configuration.
    """
    from peft import PeftConfig

    from ...modeling_lyrics import LyricsForConditionalGeneration

    hub_kwargs = {key: settings[key] for key in HUB_KWARGS if key in settings}
    base = find_base_model(name, **hub_kwargs)
    if base is None:
        return None
    config = _adopt_config(PeftConfig.from_pretrained(name, **hub_kwargs), args, name)
    place, revision = base
    model = LyricsForConditionalGeneration.from_pretrained(place, **settings | {"revision": revision})
    return load_peft_model(model, name, config, is_trainable=True, **hub_kwargs)


def continue_adapter(model: LyricsForConditionalGeneration | PeftModel, args: Any) -> PeftModel:
    """Bring a model with an adapter into the form that is trained: a `PeftModel` whose adapter is named "default".

    The adapter keeps its weights. Parts that the arguments train in full and that it lacks are added to it; parts that
    it has and that the arguments do not train stay as they are.

    Raises:
        ValueError: if the model has several adapters, or the arguments contradict the adapter's configuration.
    """
    from peft import PeftModel
    from peft.functional import delete_adapter

    configs: Any = model.peft_config
    if len(configs) > 1:
        raise ValueError(
            f"The model has several adapters ({', '.join(configs)}): keep the one to be trained, and remove the others "
            "with `delete_adapter`."
        )
    if not args.use_lora:
        raise ValueError(
            "The model has an adapter, and the arguments train no adapter (use_lora=False, or the whole language "
            "model): merge it into the model first, by `lyrics merge` or `merge_and_unload`."
        )
    (name, config), *_ = configs.items()
    if isinstance(model, PeftModel):
        completed = _with_trained_parts(config, args)
        if name == ADAPTER and _saved(completed) == _saved(config):
            return model
        state = _copy_state(model, name)
        if name == ADAPTER:  # an adapter cannot be removed before there is another one
            _add_adapter(model, "previous", config, state)
            model.delete_adapter(name)
            name = "previous"
        _add_adapter(model, ADAPTER, completed, state)
        model.delete_adapter(name)
        return model
    adopted = _with_trained_parts(_adopt_config(config, args, "of the model"), args)
    state = _copy_state(model, name)
    # the model's own method asks for a newer PEFT than it needs
    delete_adapter(model, adapter_name=name, prefix=f"{config.peft_type.value.lower()}_")
    del model.peft_config
    model._hf_peft_config_loaded = False
    with _plain_initialization(adopted):
        tuned = PeftModel(model, adopted, ADAPTER)
    _set_state(tuned, ADAPTER, state)
    return tuned


def freeze_untrained_parts(model: PeftModel, args: Any) -> None:
    """Freeze the parts of an adapter that the arguments do not train, also after a change of the active adapter.

    TRL activates another adapter for each prediction of the reference, and PEFT then enables all gradients of the
    adapter that becomes active again.
    """
    base: Any = model.get_base_model()
    frozen = [
        parameter
        for part, names in PARTS.items()
        if not args.trains(part)
        for name in names
        if hasattr(base.get_submodule(name), "modules_to_save")
        for parameter in base.get_submodule(name).parameters()
    ]
    activate = model.set_adapter

    def set_adapter(*names: Any, **options: Any) -> None:
        activate(*names, **options)
        for parameter in frozen:
            parameter.requires_grad_(False)

    model.set_adapter = set_adapter
    model.set_adapter(ADAPTER)


def _copy_state(model: Any, name: str) -> dict[str, torch.Tensor]:
    """Return copies of an adapter's weights, under the names of its file."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    return {
        f"base_model.model.{key.removeprefix('base_model.model.')}": tensor.detach().clone()
        for key, tensor in state.items()
    }


def _set_state(model: PeftModel, name: str, state: dict[str, torch.Tensor]) -> None:
    """Load an adapter's weights; parts that it does not hold keep those of the base model."""
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, _copy_state(model, name) | state, name)


def _add_adapter(model: PeftModel, name: str, config: PeftConfig, state: dict[str, torch.Tensor]) -> None:
    """Add an adapter with given weights to a model that has another one, and make it the active one."""
    config = copy.deepcopy(config)
    with _plain_initialization(config):
        model.add_adapter(name, config)
    _set_state(model, name, state)
    model.set_adapter(name)


@contextmanager
def _plain_initialization(config: Any) -> Iterator[None]:
    """Initialize an adapter whose weights are then loaded; some ways would change the base model a second time."""
    way = getattr(config, "init_lora_weights", None)
    if way is not None:
        config.init_lora_weights = True
    yield
    if way is not None:
        config.init_lora_weights = way


def _adopt_config(config: Any, args: Any, place: str) -> Any:
    """Return a copy of an adapter's configuration for training, with the dropout of this run.

    Raises:
        ValueError: if an argument of LoRA differs from its default and from the adapter.
    """
    config = copy.deepcopy(config)
    config.inference_mode = False
    asked: Any = {name: getattr(args, name) for name in _LORA_ARGUMENTS}
    for name, field in _LORA_ARGUMENTS.items():
        found = getattr(config, field, asked[name])
        if asked[name] not in (found, type(args).__dataclass_fields__[name].default):
            raise ValueError(
                f"{name}={asked[name]} contradicts the adapter {place}, whose {field} is {found} and stays: leave it "
                "out, or merge the adapter first and train a new one."
            )
    if hasattr(config, "lora_dropout"):
        config.lora_dropout = args.lora_dropout
    return config


def _with_trained_parts(config: Any, args: Any) -> Any:
    """Return a copy of a configuration whose `modules_to_save` has all parts that the arguments train in full."""
    config = copy.deepcopy(config)
    missing = [part for part in PARTS if args.trains(part) and not _saves(config, part)]
    if missing and not hasattr(config, "modules_to_save"):
        raise ValueError(f"{type(config).__name__} cannot train the {', '.join(missing)} in full: add it to `freeze`.")
    if missing:
        added = [name.removeprefix("model.") for part in missing for name in PARTS[part]]
        config.modules_to_save = [*_saved(config), *added]
    return config


def _saved(config: Any) -> list[str]:
    return list(getattr(config, "modules_to_save", None) or [])


def _saves(config: Any, part: str) -> bool:
    """Return whether an adapter trains a part in full."""
    return any(f".{name}".endswith(f".{module}") for name in PARTS[part] for module in _saved(config))
