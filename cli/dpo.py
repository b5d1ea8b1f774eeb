"""`lyrics dpo`: preference tuning with TRL's trainer, on pairs of a right and a wrong answer about one image."""

from __future__ import annotations

import argparse
from typing import Any

from .recipe_files import list_recipes
from .training import Run, add_recipe_parser, parse_recipe

STAGE = "preferences"

EXAMPLES = f"""examples:
  lyrics dpo --config hallucination --model runs/stage2-merged --train_data pairs.jsonl --output_dir runs/dpo
  lyrics dpo --config smoke

Rows have images, prompt, chosen and rejected, the last three as messages or as plain text. Images are refined on the
way, or looked up in the processor's store. Recipes that are shipped: {", ".join(list_recipes(STAGE))}.
Every key of one is also an option, and options win; `lyrics dpo --help-all` lists them.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    add_recipe_parser(commands, "dpo", "tune on preferences, a right answer over a wrong one", EXAMPLES, run)


def run(arguments: argparse.Namespace) -> int:
    """Train, or print what would be trained."""
    from lyrics.trainers.common.data_arguments import DataArguments
    from lyrics.trainers.common.trainable_parts import describe_trained
    from lyrics.trainers.dpo_trainer import LyricsDPOConfig, LyricsDPOTrainer, to_dataset
    from lyrics.trainers.sft_setup import SFTModelArguments, build_sft

    kinds = (SFTModelArguments, DataArguments, LyricsDPOConfig)
    model_arguments, data, training = parse_recipe(arguments, STAGE, kinds)
    train_rows, eval_rows = (None if rows is None else to_dataset(rows) for rows in data.open())
    model, processor = build_sft(model_arguments, training, with_objects=False, keep=not arguments.dry_run)
    data.attach_store(processor)
    trainer = LyricsDPOTrainer(model, training, train_rows, eval_rows, processor)
    trainer.training_data, trainer.evaluation_data = data.train_data, data.eval_data
    return Run(trainer, arguments).start(lambda trainer: describe_trained(trainer.model))
