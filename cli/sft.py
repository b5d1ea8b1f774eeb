"""`lyrics sft`: the second stage, instruction tuning, from a recipe."""

from __future__ import annotations

import argparse
from typing import Any

from .recipe_files import list_recipes
from .training import Run, add_recipe_parser, parse_recipe

STAGE = "stage2"

EXAMPLES = f"""examples:
  lyrics sft --config smoke
  lyrics compose runs/stage1 --language-model LLM --out composed
  lyrics sft --config paper --model composed --train_data chats.jsonl --output_dir runs/mine
  lyrics sft --config paper --dry-run
  lyrics sft --config paper --resume
  lyrics sft --config paper --freeze mqformer --train vision_model
  accelerate launch --config_file FILE -m lyrics_cli.main sft --config paper

A recipe is a YAML file, or the name of one that is shipped: {", ".join(list_recipes(STAGE))}.
Every key of it is also an option, and options win; `lyrics sft --help-all` lists them.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    add_recipe_parser(commands, "sft", "train the second stage, instruction tuning with LoRA", EXAMPLES, run)


def run(arguments: argparse.Namespace) -> int:
    """Train, or print what would be trained."""
    from lyrics.evaluation.training_callback import EvaluationArguments, build_callback
    from lyrics.trainers.common.data_arguments import DataArguments
    from lyrics.trainers.common.dry_run import describe_sft
    from lyrics.trainers.sft_config import LyricsSFTConfig
    from lyrics.trainers.sft_setup import SFTModelArguments, build_sft
    from lyrics.trainers.sft_trainer import LyricsSFTTrainer

    kinds = (SFTModelArguments, DataArguments, EvaluationArguments, LyricsSFTConfig)
    model_arguments, data, tasks, training = parse_recipe(arguments, STAGE, kinds)
    train_rows, eval_rows = data.open()
    model, processor = build_sft(model_arguments, training, keep=not arguments.dry_run)
    data.attach_store(processor)
    trainer = LyricsSFTTrainer(model, training, train_rows, eval_rows, processor)
    trainer.training_data, trainer.evaluation_data = data.train_data, data.eval_data
    if tasks.eval_tasks:
        trainer.add_callback(build_callback(tasks, trainer, processor))
    return Run(trainer, arguments).start(describe_sft)
