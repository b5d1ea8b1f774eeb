"""Training of the micro model with rewards on questions that it answers badly, evaluated before and after.

python -m lyrics.recipes.micro.rewards --out runs/micro-rewards

It writes `before.json`, `run/`, `adapter/`, `model/`, `after.json` and `table.md`. Without `--kinds`, the kind of
question with the lowest accuracy above 0 is trained: a model that is never right earns no reward to learn from. What is
there is not repeated, and an interrupted training resumes from its newest checkpoint, with `--minutes` again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import HfArgumentParser, TrainerCallback, set_seed

from ...assets import MICRO_CHECKPOINT
from ...conversion import merge_adapter
from ...modeling_lyrics import LyricsForConditionalGeneration
from ...processing_lyrics import LyricsProcessor
from ...refinement import RefinementStore
from ...trainers.grpo_trainer import LyricsGRPOConfig, LyricsGRPOTrainer
from ...utils.model_folder import holds_model, write_model
from .common.step_trainer import run_trainer
from .evaluate import answer_cases
from .world.cases import KINDS, accuracies, draw_cases
from .world.datasets import QuestionRows

_SMOKE: dict[str, Any] = {"scenes": 16, "per_kind": 2, "max_steps": 2, "save_steps": 1, "logging_steps": 1}
_SMOKE |= {"per_device_train_batch_size": 4, "num_generations": 2}


class StopAfter(TrainerCallback):
    """Callback that ends the training after a time, with a checkpoint.

    Args:
        seconds: number of seconds from the start of this process's training.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.start = seconds, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.start = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop if the time is over."""
        if time.monotonic() - self.start >= self.seconds:
            control.should_training_stop = control.should_save = control.should_log = True


def evaluate(folder: Path, per_kind: int, out: Path) -> dict[str, float]:
    """Return the accuracy of a model for each kind of question about test scenes, and write it to `out`.

    Args:
        folder: folder of the model.
        per_kind: number of questions of each kind.
        out: JSON file. If it exists, nothing is computed.
    """
    if not out.is_file():
        model = LyricsForConditionalGeneration.from_pretrained(folder)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        processor = LyricsProcessor.from_pretrained(folder).to(device=model.device)
        outcomes = answer_cases(model, processor, draw_cases(per_kind))
        out.write_text(json.dumps(accuracies(outcomes), indent=2) + "\n")
    return json.loads(out.read_text())


def train(
    model: Path, out: Path, kinds: Sequence[str], settings: dict[str, Any], arguments: argparse.Namespace
) -> Path:
    """Train an adapter with rewards, or resume, merge it, and return the folder of the merged model.

    Args:
        model: folder of the model.
        out: folder of the run.
        kinds: kinds of questions, keys of `FAMILIES`.
        settings: fields of `LyricsGRPOConfig`, and the number of the scenes and of the questions about each.
        arguments: namespace with `minutes`, `store` and `seed`.
    """
    merged = out / "model"
    if holds_model(merged):
        return merged
    rows = QuestionRows("train", settings.pop("scenes"), settings.pop("first"), settings.pop("questions"), kinds)
    settings |= {"output_dir": str(out / "run"), "seed": arguments.seed}
    (args,) = HfArgumentParser(LyricsGRPOConfig).parse_dict(settings)  # pyright: ignore[reportArgumentType]
    set_seed(args.seed)
    processor = LyricsProcessor.from_pretrained(model)
    if arguments.store is not None:
        processor.store = RefinementStore.open(arguments.store)
    callbacks = [StopAfter(60 * arguments.minutes)]
    trainer = LyricsGRPOTrainer(str(model), args, rows, processing_class=processor, callbacks=callbacks)
    run_trainer(trainer, evaluate=False)
    trainer.save_model(str(out / "adapter"))
    with write_model(merged) as folder:
        for part in merge_adapter(out / "adapter"):
            part.save_pretrained(folder)
    return merged


def format_results(before: dict[str, float], after: dict[str, float], kinds: Sequence[str]) -> str:
    """Return a Markdown table of the accuracies before and after, trained kinds in bold."""
    lines = ["| questions | before | after |", "|---|---:|---:|"]
    for kind in before:
        name = f"**{kind}**" if kind in kinds else kind
        lines.append(f"| {name} | {before[kind]:.1f} | {after[kind]:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Evaluate, train, and evaluate again, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/micro-rewards"), help="folder of the run")
    parser.add_argument("--model", type=Path, default=Path(MICRO_CHECKPOINT), help="folder of the model")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="kinds of questions to train (default: the worst)")
    parser.add_argument("--store", type=Path, help="store with the objects of the scenes, which are refined otherwise")
    parser.add_argument("--minutes", type=float, default=60.0, help="longest time of training (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a few scenes")
    arguments = parser.parse_args()
    settings: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("rewards.yaml").read_text())
    settings |= _SMOKE if arguments.smoke else {}
    per_kind = settings.pop("per_kind")
    arguments.out.mkdir(parents=True, exist_ok=True)
    before = evaluate(arguments.model, per_kind, arguments.out / "before.json")
    kinds = arguments.kinds or [min(before, key=lambda kind: before[kind] or 101.0)]
    merged = train(arguments.model, arguments.out, kinds, settings, arguments)
    after = evaluate(merged, per_kind, arguments.out / "after.json")
    (arguments.out / "table.md").write_text(format_results(before, after, kinds) + "\n")


if __name__ == "__main__":
    main()
