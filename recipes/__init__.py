"""Recipes: a YAML file for every training run. `--config smoke` finds them by name, `--config FILE` takes a file."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def list_recipes(stage: str) -> list[str]:
    """Names of the recipes of a stage (`stage1`, `stage2`)."""
    return sorted(path.stem for path in (FOLDER / stage).glob("*.yaml"))


def find_recipe(name: str, stage: str) -> Path:
    """The file of a recipe, by its path or by its name.

    Raises:
        ValueError: with the names that there are.
    """
    for path in (Path(name), FOLDER / stage / f"{name}.yaml"):
        if path.is_file():
            return path
    raise ValueError(f"There is no file and no recipe {name!r}; the recipes are {', '.join(list_recipes(stage))}.")
