"""Step 3: the language model, on dialogues about scenes whose objects it is told, each as one vector."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments, set_seed
from transformers.utils import logging

from ..common.initialization import all_coordinates, compose_coordinates
from ..common.muon import use_muon
from ..common.step_trainer import newest_checkpoint
from ..configs import build_micro_text_tokenizer, language_model_config
from ..evaluate import accuracies, draw_cases
from ..world.datasets import ToldRows
from ..world.questions import all_names
from .symbolic_answers import answer_told
from .symbolic_inputs import ToldCollator, ToldLanguageModel, find_word

logger = logging.get_logger(__name__)


def train_language_model(
    settings: Mapping[str, Any],
    phases: Sequence[Mapping[str, Any]],
    dialogues: int,
    eval_scenes: int,
    questions: int,
    out: Path,
) -> None:
    """Train and write a causal language model with its tokenizer, and into `results.json` how often it is right.

    Args:
        settings: of Transformers' arguments that all phases share, and Muon's `matrix_learning_rate`; each has a folder
            of its own in `output_dir`.
        phases: one after the other, each with its `name`, `loudness` of boxes and `hints`, `groups`, `recolored` and
            `alike` of `ToldRows`, which share of attention's scores is left as it begins (`softened`), and arguments
            that replace those of `settings`.
        dialogues: about each scene; no phase sees the scenes of another.
        eval_scenes: with a dialogue each.
        questions: of each kind, about validation scenes that it is told plainly.
        out: a folder; `results.json` is beside it.
    """
    set_seed(settings["seed"])
    tokenizer = build_micro_text_tokenizer()
    collator = ToldCollator(build_micro_text_tokenizer())
    model = ToldLanguageModel(language_model_config(tokenizer))
    compose_names(model, tokenizer)
    # a coordinate is like what all boxes with it have in common
    boxes = all_coordinates()[:, None].expand(-1, 4)
    words: Any = model.get_input_embeddings()
    compose_coordinates(words.weight.data, tokenizer, model.tell_boxes(boxes))
    clear_residual_stream(model)
    first = 0
    for phase in phases:
        first += _train_phase(model, collator, dict(settings), dict(phase), first, dialogues, eval_scenes)
    # its configuration anew: the trainer has turned the cache off in that of the model
    language_model: Any = LlamaForCausalLM(language_model_config(tokenizer))
    told = model.state_dict()
    language_model.load_state_dict({name: told[name] for name in language_model.state_dict()})
    language_model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    cases = draw_cases(questions, "validation")  # the recipe follows from them, so not test scenes
    outcomes = answer_told(language_model.to(model.device).eval(), model.eval(), collator, cases)
    (out.parent / "results.json").write_text(json.dumps({"accuracy": accuracies(outcomes)}, indent=2) + "\n")


def _train_phase(
    model: ToldLanguageModel,
    collator: ToldCollator,
    settings: dict[str, Any],
    phase: dict[str, Any],
    first: int,
    dialogues: int,
    eval_scenes: int,
) -> int:
    """Train a phase, or go on with it; returns how many scenes it sees from the first on."""
    folder = Path(settings["output_dir"]) / phase.pop("name")
    logger.info("%s: begins", folder)
    model.loudness, model.hints = phase.pop("loudness"), phase.pop("hints", False)
    soften_attention(model.model, phase.pop("softened", 1.0))
    asked: Any = {key: phase.pop(key) for key in ("groups", "recolored", "alike") if key in phase}
    own: dict[str, Any] = settings | phase | {"output_dir": str(folder), "remove_unused_columns": False}
    matrix_learning_rate: float = own.pop("matrix_learning_rate")
    arguments = TrainingArguments(**own, label_names=["labels"])  # else no loss would be evaluated
    scenes = -(-arguments.max_steps * arguments.train_batch_size // dialogues)
    train_rows = ToldRows("train", scenes, first, dialogues, **asked)
    trainer = Trainer(model, arguments, collator, train_rows, ToldRows("validation", eval_scenes, **asked))
    use_muon(trainer, matrix_learning_rate)
    trainer.train(resume_from_checkpoint=newest_checkpoint(arguments))
    trainer.evaluate()
    trainer.save_state()
    return scenes


@torch.no_grad()
def compose_names(language_model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let an object's name begin as the sum of its words: names that share a color share what says so.

    Args:
        language_model: whose embeddings, `(vocab_size, width)`, change; their variance does not.
        tokenizer: with `all_names`.
    """
    table = language_model.get_input_embeddings().weight
    for name, words in all_names().items():
        ids = [find_word(tokenizer, word) for word in words]
        table[tokenizer.convert_tokens_to_ids(name)] = table[ids].sum(dim=0) / len(ids) ** 0.5


@torch.no_grad()
def clear_residual_stream(language_model: LlamaForCausalLM) -> None:
    """Let layers begin by adding nothing, so that later ones can compare what was told as it is."""
    for layer in language_model.model.layers:
        block: Any = layer
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()


@torch.no_grad()
def soften_attention(language_model: Any, share: float) -> None:
    """Scale the scores of attention.

    A model that is sure of the one vector that it looks at learns little from vectors of another kind.

    Args:
        language_model: LLaMA, whose queries change.
        share: of the scores that is left.
    """
    for layer in language_model.layers:
        layer.self_attn.q_proj.weight.mul_(share)
