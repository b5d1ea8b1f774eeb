"""Parts of the training commands: recipes with options over them, dry runs, resuming, and the end of a run."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from .common import add_command
from .recipe_files import find_recipe


def add_recipe_parser(
    commands: Any, name: str, help_text: str, examples: str, run: Callable[[argparse.Namespace], int]
) -> None:
    """Register a command that takes a recipe, and every key of a recipe as an option."""
    parser = add_command(commands, name, help_text, f"{help_text[0].upper()}{help_text[1:]}.", examples)
    parser.allow_abbrev = False  # a beginning of an option may be an option of the recipe
    parser.add_argument("--config", metavar="NAME|FILE", help="a recipe, by name or path")
    parser.add_argument("--dry-run", action="store_true", help="print what would be trained, and stop")
    parser.add_argument(
        "--resume", action="store_true", help="resume from the newest complete checkpoint, or start where there is none"
    )
    parser.add_argument("--help-all", action="store_true", help="list every option that a recipe may set, and stop")
    parser.set_defaults(run=run, takes_more=True)


def parse_recipe(arguments: argparse.Namespace, stage: str, kinds: Sequence[Any]) -> tuple[Any, ...]:
    """Return the recipe with the options of the command line over it, one dataclass of each kind.

    Where standard error is no terminal, training shows no bar unless `disable_tqdm` says otherwise: its log has a line
    for each entry anyway. The seed is set here, since it also decides the initial weights of a new model; the trainer
    would set it later.

    Args:
        arguments: namespace of a command that `add_recipe_parser` registered.
        stage: folder of the recipes that are known by name.
        kinds: dataclasses, the last of them a kind of `TrainingArguments`.

    Raises:
        ValueError: when there is no such recipe, or when it or the command line has an unknown key.
        SystemExit: after an option with a wrong value, or after the list of options.
    """
    from transformers import set_seed
    from trl import TrlParser

    parser: Any = TrlParser(kinds, prog=f"lyrics {arguments.command}", allow_abbrev=False)  # pyright: ignore[reportArgumentType]
    if not sys.stderr.isatty():
        parser.set_defaults(disable_tqdm=True)
    if arguments.help_all:
        parser.print_help()
        raise SystemExit(0)
    options = list(arguments.more)
    if arguments.config is not None:
        recipe = find_recipe(arguments.config, stage)
        merged = [name for kind in kinds for name in getattr(kind, "merged_options", ())]
        options = [*_merge_options(options, recipe, merged), "--config", str(recipe)]
    *parsed, of_recipe, of_line = parser.parse_args_and_config(
        options, return_remaining_strings=True, separate_remaining_strings=True
    )
    known = [field.name for kind in kinds for field in fields(kind)]
    _refuse_unknown(f"The recipe {arguments.config}", of_recipe, known, arguments.command)
    _refuse_unknown("The command line", of_line, known, arguments.command)
    set_seed(parsed[-1].seed)
    return tuple(parsed)


def _merge_options(options: Sequence[str], recipe: Path, names: Sequence[str]) -> list[str]:
    """Return options with the recipe's mapping below each JSON object that has one of some names."""
    import yaml

    merged, given = list(options), set(names)
    for place, word in enumerate(options):
        name, sign, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name.replace("-", "_") not in given:
            continue
        place += not sign
        try:
            fields = json.loads(value if sign else options[place])
            below = yaml.safe_load(recipe.read_text("utf-8")).get(name.replace("-", "_"))
        except (ValueError, IndexError, AttributeError, yaml.YAMLError):  # whoever parses them says what is wrong
            continue
        if isinstance(fields, dict) and isinstance(below, dict):
            text = json.dumps(below | fields)
            merged[place] = f"--{name}={text}" if sign else text
    return merged


def _refuse_unknown(place: str, words: Sequence[str], known: Sequence[str], command: str) -> None:
    """Refuse what a parser has left over.

    Raises:
        ValueError: there is a word.
    """
    if not words:
        return
    names = [word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")]
    if not names:
        raise ValueError(f"{place} has {words[0]!r}, which belongs to no option.")
    close = difflib.get_close_matches(names[0].replace("-", "_"), known, n=1)
    meant = f": did you mean {close[0]!r}?" if close else "."
    raise ValueError(
        f"{place} has the unknown key {names[0]!r}{meant} `lyrics {command} --help-all` lists what can be set."
    )


class Run:
    """A training run of the command line."""

    def __init__(self, trainer: Any, arguments: argparse.Namespace) -> None:
        self.trainer, self.arguments = trainer, arguments

    def start(self, describe: Callable[[Any], str]) -> int:
        """Train to the end and save the model, or describe what would be done."""
        from lyrics.utils.model_folder import holds_model

        trainer = self.trainer
        if self.arguments.dry_run:
            if trainer.is_world_process_zero():
                print(describe(trainer))
            return 0
        if trainer.is_world_process_zero():
            from lyrics.trainers.common.trainable_parts import describe_trained

            print(describe_trained(trainer.model))
        output_dir = Path(trainer.args.output_dir)
        goes_on = self.arguments.resume and any(output_dir.glob("checkpoint-*"))
        trainer.train(resume_from_checkpoint=goes_on or None)
        if trainer.num_trained_steps == 0 and holds_model(output_dir):
            if trainer.is_world_process_zero():
                step = trainer.state.global_step
                print(f"The run in {output_dir} is finished ({step} steps). Nothing was trained, and nothing written.")
            return 0
        trainer.save_model()
        trainer.save_state()
        if trainer.is_world_process_zero():
            print("\n".join(_describe_result(trainer, output_dir)))
        return 0


def _describe_result(trainer: Any, folder: Path) -> list[str]:
    """Return where the result is, the best evaluation, and the next command, as lines."""
    lines = [f"Wrote model and processor to {folder}"]
    if trainer.args.push_to_hub:
        from huggingface_hub import constants

        lines.append(f"Pushed to {constants.ENDPOINT}/{trainer.hub_model_id}")
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    if evaluations:
        best = min(evaluations, key=lambda entry: entry["eval_loss"])
        lines.append(f"Best evaluation: loss {best['eval_loss']:.4g} at step {best['step']}")
    if (folder / "adapter_config.json").is_file():
        lines.append(f"Next: lyrics ask --model {folder} IMAGE QUESTION, or lyrics merge {folder} --out MERGED")
    elif hasattr(trainer.model, "generate"):
        lines.append(f"Next: lyrics ask --model {folder} IMAGE QUESTION")
    else:
        lines.append(f"Next: lyrics compose {folder} --language-model LLM --out {folder}-composed")
    return lines
