"""Recipes as files: `--config smoke` finds one by name, `--config FILE` takes a file.

The folder of the recipes is located without importing `lyrics`, so that `--help` can list them at once.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def recipe_folder() -> Path:
    """Return the folder `recipes` of the installed package."""
    spec = find_spec("lyrics")
    if spec is None or spec.origin is None:
        raise ImportError(
            "The package `lyrics` is missing beside `lyrics_cli`: install the distribution ziya-lyrics again."
        )
    return Path(spec.origin).with_name("recipes")


def list_recipes(stage: str) -> list[str]:
    """Return the names of the recipes of a stage (`stage1`, `stage2`, `preferences` or `rewards`)."""
    return sorted(path.stem for path in (recipe_folder() / stage).glob("*.yaml"))


def find_recipe(name: str, stage: str) -> Path:
    """Return the file of a recipe, given its path or its name.

    Raises:
        ValueError: when there is none, or when the file is not YAML; the message lists the names of those that ship.
    """
    import yaml

    for path in (Path(name), recipe_folder() / stage / f"{name}.yaml"):
        if path.is_file():
            try:
                yaml.safe_load(path.read_bytes())
            except yaml.YAMLError as error:
                raise ValueError(f"{path} is not YAML: {error}") from error
            return path
    raise ValueError(f"There is no file and no recipe {name!r}; the recipes are {', '.join(list_recipes(stage))}.")
