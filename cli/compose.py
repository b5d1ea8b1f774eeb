"""`lyrics compose`: models for the second stage, from a first stage and a language model, or with parts replaced."""

from __future__ import annotations

import argparse
from typing import Any

from .common import add_command, add_output_arguments, on_one_line, require_new_folder, write_output

EXAMPLES = """examples:
  lyrics compose runs/stage1 --language-model lmsys/vicuna-7b-v1.5 --out composed --dtype bfloat16
  lyrics compose --from my-model --language-model Qwen/Qwen2.5-7B-Instruct --out composed
  lyrics compose --from my-model --detector IDEA-Research/grounding-dino-base --out composed
"""

PARTS = ("language_model", "vision", "tagger", "detector", "segmenter")


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = (
        "Write a model for the second stage: vision encoder and MQ-Former of the first stage, a language model, and a "
        "new projection between them. With --from, replace parts of a whole model and keep the others. The language "
        "model keeps its own chat template."
    )
    help_text = "join a first-stage checkpoint and a language model, or replace parts of a model"
    parser = add_command(commands, "compose", help_text, description, EXAMPLES)
    parser.add_argument("stage1", metavar="STAGE1", nargs="?", help="a first-stage checkpoint's directory or Hub id")
    parser.add_argument("--from", dest="model", metavar="DIR|ID", help="a whole model whose parts are replaced")
    parser.add_argument("--language-model", metavar="DIR|ID", help="a causal language model")
    parser.add_argument("--vision", metavar="DIR|ID", help="with --from: a vision encoder")
    parser.add_argument("--tagger", metavar="DIR|ID", help="with --from: a tagger (RAM)")
    parser.add_argument("--detector", metavar="DIR|ID", help="with --from: a zero-shot detector")
    parser.add_argument("--segmenter", metavar="DIR|ID", help="with --from: a segmenter (SAM)")
    parser.add_argument("--refiner", metavar="DIR|ID", help="with STAGE1: a checkpoint whose refiner is used")
    parser.add_argument(
        "--chat-template",
        metavar="own|vicuna|FILE",
        help="chat template: the language model's own, Vicuna's, or a Jinja file (default: the language model's own "
        "where it has one)",
    )
    add_output_arguments(parser, "the language model's")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the parts, join them and write the model."""
    from lyrics.conversion import PartPlaces
    from lyrics.conversion.compose_checks import check_parts

    _check_arguments(arguments)
    require_new_folder(arguments.out)
    parts = PartPlaces(**{name: getattr(arguments, name) for name in PARTS})
    changes = check_parts(arguments.model or arguments.stage1, parts, is_whole=arguments.model is not None)
    model, processor, facts = _replace(arguments, parts) if arguments.model else _join(arguments)
    write_output(arguments, model, processor, facts)
    print(f"Wrote model and processor to {arguments.out}")
    print("\n".join(["New:", *(f"  {on_one_line(line)}" for line in changes.new)]))
    if arguments.language_model is not None:
        from lyrics.conversion.chat_template import describe_stops, describe_template

        template = on_one_line(describe_template(processor, arguments.chat_template))
        print(f"  {template}; answers are found by {_describe_answers(processor)}")
        print(f"  answers end at {on_one_line(describe_stops(model, processor))}")
    print("\n".join(["To be trained:", *(f"  {on_one_line(line)}" for line in changes.to_train or ["nothing"])]))
    return 0


def _describe_answers(processor: Any) -> str:
    """Return how training finds answers under the chat template, or why it does not."""
    from lyrics.trainers.data.answer_spans import AnswerFinder

    try:
        return AnswerFinder(processor).way
    except ValueError as error:
        return f"nothing, so that `lyrics sft` refuses it; `lyrics grpo` does not need them. {error}"


def _check_arguments(arguments: argparse.Namespace) -> None:
    """Raise a `ValueError` for options that do not go together."""
    if (arguments.stage1 is None) == (arguments.model is None):
        raise ValueError("Give either STAGE1, a first-stage checkpoint, or --from, a whole model.")
    given = [f"--{name.replace('_', '-')}" for name in PARTS if getattr(arguments, name) is not None]
    if arguments.model is None:
        if arguments.language_model is None:
            raise ValueError("A first stage needs a language model: give --language-model.")
        if len(given) > 1:
            raise ValueError(f"{given[1]} replaces a part of a whole model: give it with --from.")
        return
    if not given:
        raise ValueError(
            "--from needs a part to replace: --language-model, --vision, --tagger, --detector, --segmenter."
        )
    if arguments.refiner is not None:
        raise ValueError("--refiner goes with STAGE1: --from keeps the model's refiner, or replaces its parts.")
    if arguments.chat_template is not None and arguments.language_model is None:
        raise ValueError("--chat-template goes with a new --language-model.")


def _join(arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Return model, processor and facts of a first stage and a language model."""
    from lyrics import compose
    from lyrics.conversion.card_facts import describe_composition, name_of_folder

    model, processor = compose(
        arguments.stage1,
        arguments.language_model,
        refiner_of=arguments.refiner,
        dtype=arguments.dtype or "auto",
        chat_template=arguments.chat_template,
    )
    facts = describe_composition(name_of_folder(arguments.out), arguments.stage1, arguments.language_model)
    return model, processor, facts


def _replace(arguments: argparse.Namespace, parts: Any) -> tuple[Any, Any, Any]:
    """Return model, processor and facts of a model with new parts."""
    from lyrics.conversion import replace_parts
    from lyrics.conversion.card_facts import describe_replacement, name_of_folder

    model, processor = replace_parts(
        arguments.model, parts, dtype=arguments.dtype or "auto", chat_template=arguments.chat_template
    )
    new = {name.replace("_", " "): place for name in PARTS if (place := getattr(arguments, name)) is not None}
    facts = describe_replacement(name_of_folder(arguments.out), arguments.model, new)
    return model, processor, facts
