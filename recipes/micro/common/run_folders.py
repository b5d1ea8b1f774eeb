"""Folders and settings of the steps that make one micro model.

out/STEP               folder of a step that all models share (`SHARED_STEPS`)
out/VARIANT-SEED/STEP  folder of a step of one model (`MODEL_STEPS`)
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..ablations import VARIANTS, Variant

# The longest steps first, as far as they do not depend on each other.
SHARED_STEPS = ("language", "backbone", "tagger", "detector", "segmenter", "vision", "refiner", "rows", "store")
MODEL_STEPS = ("stage1", "composed", "stage2", "evaluation")
FINISHED = "finished.json"

_RECIPES = Path(__file__).parents[1]
_RENAMED_KEYS = {"loudness": "box_scale", "softened": "attention_logit_scale"}  # former name -> name


@dataclass
class RunFolders:
    """Folders and settings of one model.

    Attributes:
        out: folder of all models.
        name: key of `VARIANTS`, or name of a model that another recipe defines.
        seed: random seed of the training runs.
        smoke: whether every step makes only a few optimization steps on a few scenes.
        recipe: name of a recipe that replaces settings of steps, or `None`. It has one mapping for each of these steps.
    """

    out: Path
    name: str = "full"
    seed: int = 0
    smoke: bool = False
    recipe: str | None = None

    @property
    def variant(self) -> Variant:
        """Variant of the model."""
        return VARIANTS[self.name]

    def folder(self, step: str) -> Path:
        """Return the folder of a step."""
        return self.out / step if step in SHARED_STEPS else self.out / f"{self.name}-{self.seed}" / step

    def model(self, step: str) -> Path:
        """Return the folder of the model that a step trains."""
        return self.folder(step) / "model"

    def settings(self, step: str) -> dict[str, Any]:
        """Return the settings in the recipe of a step, which `recipe` and a smoke run override in part."""
        others = [self.recipe] if self.recipe else []
        settings = _read(step)
        for name in [*others, "smoke"] if self.smoke else others:
            settings |= _read(name).get(step, {})
        return settings

    def training_settings(self, step: str) -> dict[str, Any]:
        """Return the settings of a step with those that all training runs share."""
        return self.settings("common") | {"output_dir": str(self.folder(step)), "seed": self.seed} | self.settings(step)

    def has_finished(self, step: str) -> bool:
        """Return whether a step has finished.

        Raises:
            ValueError: the step has finished with other settings than those of its recipe.
        """
        file = self.folder(step) / FINISHED
        if not file.is_file():
            return False
        finished, settings = _with_new_names(json.loads(file.read_text())["settings"]), self.settings(step)
        if different := sorted(key for key in finished | settings if finished.get(key) != settings.get(key)):
            raise ValueError(
                f"{file.parent} has finished with other settings than its recipe has now ({', '.join(different)}). "
                "Delete it to repeat it and the steps that depend on it, or choose another folder."
            )
        return True

    def read_finished(self, step: str) -> dict[str, Any]:
        """Return what `mark_finished` has written about a step."""
        return json.loads((self.folder(step) / FINISHED).read_text())

    def mark_finished(self, step: str, seconds: int, settings: dict[str, Any], **notes: Any) -> None:
        """Write `finished.json` of a step.

        Args:
            step: name of the step.
            seconds: duration since the step was started or resumed.
            settings: settings that the step has used.
            notes: further entries.
        """
        finished = {"seconds": seconds, "settings": settings, **notes}
        (self.folder(step) / FINISHED).write_text(json.dumps(finished, indent=2) + "\n")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model: `--out`, `--variant` and `--seed`."""
    default = Path("runs/micro")
    parser.add_argument("--out", type=Path, default=default, help=f"folder of all steps (default: {default})")
    parser.add_argument("--variant", choices=VARIANTS, default="full", help="variant of the model (default: full)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the model (default: 0)")


def _read(name: str) -> dict[str, Any]:
    """Return the content of a recipe, or an empty mapping for a step without one."""
    file = _RECIPES / f"{name}.yaml"
    return _with_new_names(yaml.safe_load(file.read_text()) or {}) if file.is_file() else {}


def _with_new_names(settings: Any) -> Any:
    """Replace former names of settings, also inside lists and mappings."""
    if isinstance(settings, dict):
        return {_RENAMED_KEYS.get(key, key): _with_new_names(value) for key, value in settings.items()}
    return [_with_new_names(one) for one in settings] if isinstance(settings, list) else settings
