"""`lyrics pretrain`: the first stage, vision-language alignment, from a recipe."""

from __future__ import annotations

import argparse
from typing import Any

from .recipe_files import list_recipes
from .training import Run, add_recipe_parser, parse_recipe

STAGE = "stage1"

EXAMPLES = f"""examples:
  lyrics pretrain --config smoke
  lyrics pretrain --config paper --train_data captions.jsonl --streaming false --store STORE --output_dir runs/mine
  lyrics pretrain --config paper --dry-run
  lyrics pretrain --config paper --resume
  accelerate launch --config_file FILE -m lyrics_cli.main pretrain --config paper

A recipe is a YAML file, or the name of one that is shipped: {", ".join(list_recipes(STAGE))}.
Every key of it is also an option, and options win; `lyrics pretrain --help-all` lists them.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    add_recipe_parser(commands, "pretrain", "train the first stage, vision-language alignment", EXAMPLES, run)


def run(arguments: argparse.Namespace) -> int:
    """Train, or print what would be trained."""
    from lyrics.trainers import LyricsPretrainingArguments, LyricsPretrainingTrainer
    from lyrics.trainers.common.data_arguments import DataArguments
    from lyrics.trainers.common.dry_run import describe_pretraining
    from lyrics.trainers.pretraining_setup import PretrainingModelArguments, build_pretraining

    kinds = (PretrainingModelArguments, DataArguments, LyricsPretrainingArguments)
    model_arguments, data, training = parse_recipe(arguments, STAGE, kinds)
    columns = {"image_column": training.image_column, "caption_column": training.caption_column}
    train_rows, eval_rows = data.open(**columns)
    model, processor = build_pretraining(model_arguments)
    data.attach_store(processor)
    trainer = LyricsPretrainingTrainer(model, training, train_rows, eval_rows, processor)
    trainer.training_data, trainer.evaluation_data = data.train_data, data.eval_data
    return Run(trainer, arguments).start(describe_pretraining)
