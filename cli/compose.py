"""`lyrics compose`: a first-stage checkpoint and a language model as a model for the second stage."""

from __future__ import annotations

import argparse
from typing import Any

from .common import add_command, add_output_arguments, require_new_folder, write_output

EXAMPLES = """example:
  lyrics compose runs/stage1 --language-model lmsys/vicuna-7b-v1.5 --out composed --dtype bfloat16
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = (
        "Write a model for the second stage: vision encoder and MQ-Former of the first stage, a language model, and a "
        "new projection between them."
    )
    help_text = "join a first-stage checkpoint and a language model"
    parser = add_command(commands, "compose", help_text, description, EXAMPLES)
    parser.add_argument("stage1", metavar="STAGE1", help="a first-stage checkpoint's directory or Hub id")
    parser.add_argument("--language-model", metavar="DIR|ID", required=True, help="a causal language model")
    parser.add_argument("--refiner", metavar="DIR|ID", help="a checkpoint whose refiner goes with the model")
    add_output_arguments(parser, "the language model's")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Join and write."""
    from lyrics import compose
    from lyrics.conversion.card_facts import describe_composition, name_of_folder

    require_new_folder(arguments.out)
    dtype = arguments.dtype or "auto"
    model, processor = compose(arguments.stage1, arguments.language_model, refiner_of=arguments.refiner, dtype=dtype)
    facts = describe_composition(name_of_folder(arguments.out), arguments.stage1, arguments.language_model)
    write_output(arguments, model, processor, facts)
    print(f"Wrote model and processor to {arguments.out}; the projection is new and must be trained")
    return 0
