"""Step 3: train the language model on dialogues about scenes whose objects are given as symbols."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, get_args

from transformers import LlamaForCausalLM, Trainer, TrainingArguments, set_seed
from transformers.utils import logging

from ..common.initialization import (
    coordinate_values,
    init_coordinate_embeddings,
    init_name_embeddings,
    scale_attention_logits,
    zero_residual_branches,
)
from ..common.muon import use_muon
from ..common.run_folders import RunFolders
from ..common.step_trainer import run_trainer
from ..configs import build_micro_text_tokenizer, language_model_config
from ..world.cases import accuracies, draw_cases
from ..world.datasets import SymbolicDialogues
from ..world.names import all_names
from ..world.scenes import draw_scene
from ..world.wordings import Wording
from .symbolic_inputs import SymbolicCollator, SymbolicLanguageModel, answer_symbolic_cases

logger = logging.get_logger(__name__)


def train_language_model(folders: RunFolders) -> None:
    """Train and write a causal language model with its tokenizer, and its accuracy by wording as `results.json`.

    The recipe has the training arguments that all phases share, with Muon's `matrix_learning_rate`, and

    - `phases`: phases of the training, each with its `name`, `box_scale` and `hints` of `SymbolicLanguageModel`,
      `groups`, `recolored`, `alike` and `wording` of `SymbolicDialogues`, `attention_logit_scale` (factor of the
      attention logits at the start of the phase), and training arguments that replace those of the recipe;
    - `dialogues`: number of dialogues about each scene. No scene occurs in two phases;
    - `eval_scenes`: number of validation scenes, with one dialogue each;
    - `questions`: number of evaluation questions of each kind, about validation scenes.
    """
    settings = folders.training_settings("language")
    phases, questions = settings.pop("phases"), settings.pop("questions")
    set_seed(settings["seed"])
    tokenizer = build_micro_text_tokenizer()
    collator = SymbolicCollator(build_micro_text_tokenizer())
    model = SymbolicLanguageModel(language_model_config(tokenizer))
    embeddings: Any = model.get_input_embeddings()
    init_name_embeddings(embeddings.weight.data, tokenizer, all_names())
    # The embedding of a coordinate points to what all boxes with this coordinate have in common.
    boxes = coordinate_values()[:, None].expand(-1, 4)
    init_coordinate_embeddings(embeddings.weight.data, tokenizer, model.embed_boxes(boxes))
    zero_residual_branches(model)
    first = 0
    for phase in phases:
        first += _train_phase(model, collator, settings | phase, first)
    # A new configuration, since the trainer has turned off the cache in the model's.
    language_model = LlamaForCausalLM(language_model_config(tokenizer))
    weights = model.state_dict()
    language_model.load_state_dict({name: weights[name] for name in language_model.state_dict()})
    language_model.save_pretrained(folders.model("language"))
    tokenizer.save_pretrained(folders.model("language"))
    language_model.to(model.device)  # pyright: ignore[reportArgumentType]
    results = {}
    for wording in get_args(Wording):
        # not test scenes, since the recipe was chosen by the results
        cases = draw_cases(questions, partial(draw_scene, "validation"), wording=wording)
        outcomes = answer_symbolic_cases(language_model.eval(), model.eval(), collator, cases)
        results[wording] = accuracies(outcomes)
    (folders.folder("language") / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def _train_phase(model: SymbolicLanguageModel, collator: SymbolicCollator, settings: dict[str, Any], first: int) -> int:
    """Train a phase, or resume it.

    Args:
        model: model to train.
        collator: collator of the rows.
        settings: settings of the phase and of the recipe.
        first: number of the first training scene.

    Returns:
        The number of training scenes.
    """
    folder = Path(settings["output_dir"]) / settings.pop("name")
    logger.info("%s: starts", folder)
    model.box_scale, model.hints = settings.pop("box_scale"), settings.pop("hints", False)
    scale_attention_logits(model.model, settings.pop("attention_logit_scale", 1.0))
    rows: Any = {key: settings.pop(key) for key in ("groups", "recolored", "alike", "wording") if key in settings}
    dialogues, eval_scenes = settings.pop("dialogues"), settings.pop("eval_scenes")
    matrix_learning_rate: float = settings.pop("matrix_learning_rate")
    settings |= {"output_dir": str(folder), "remove_unused_columns": False}
    arguments = TrainingArguments(**settings, label_names=["labels"])  # without label_names there is no evaluation loss
    scenes = -(-arguments.max_steps * arguments.train_batch_size // dialogues)
    train_rows = SymbolicDialogues("train", scenes, first, dialogues, **rows)
    trainer = Trainer(model, arguments, collator, train_rows, SymbolicDialogues("validation", eval_scenes, **rows))
    use_muon(trainer, matrix_learning_rate)
    run_trainer(trainer)
    return scenes
