"""`lyrics grpo`: training with rewards on TRL's trainer, for boxes, counts, existence and texts."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .recipe_files import list_recipes
from .training import Run, add_recipe_parser, parse_recipe

STAGE = "rewards"

EXAMPLES = f"""examples:
  lyrics grpo --config smoke
  lyrics grpo --config grounding --model runs/stage2-merged --train_data questions.jsonl --output_dir runs/grpo
  lyrics grpo --config grounding --rewards iou format my_rewards.politeness
  lyrics grpo --config grounding --dry-run

Rows have images, prompt and what is expected of the answer (expected_boxes, expected_count, expected_existence,
expected_answer), or are rows of `lyrics sft`, whose last answer tells it. The rewards are iou, format, count,
existence, exact, words, and functions of your own in TRL's form. Recipes that are shipped:
{", ".join(list_recipes(STAGE))}.
Every key of one is also an option, and options win; `lyrics grpo --help-all` lists them.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    add_recipe_parser(commands, "grpo", "train with rewards for right answers", EXAMPLES, run)


def run(arguments: argparse.Namespace) -> int:
    """Train, or print what would be trained."""
    from lyrics.trainers.common.data_arguments import DataArguments
    from lyrics.trainers.common.dry_run import describe_grpo
    from lyrics.trainers.grpo_trainer import LyricsGRPOConfig, LyricsGRPOTrainer
    from lyrics.trainers.rewards import find_rewards
    from lyrics.trainers.sft_setup import SFTModelArguments, build_sft

    kinds = (SFTModelArguments, DataArguments, LyricsGRPOConfig)
    model_arguments, data, training = parse_recipe(arguments, STAGE, kinds)
    if os.getcwd() not in sys.path:  # where one's own rewards are
        sys.path.append(os.getcwd())
    rewards = find_rewards(training.rewards)
    train_rows, eval_rows = data.open()
    model, processor = build_sft(model_arguments, training, keep=not arguments.dry_run)
    data.attach_store(processor)
    trainer = LyricsGRPOTrainer(model, training, train_rows, eval_rows, processor, rewards)
    trainer.training_data, trainer.evaluation_data = data.train_data, data.eval_data
    return Run(trainer, arguments).start(describe_grpo)
