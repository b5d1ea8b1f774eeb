"""Recipe of a mixture: a YAML file with data sets, their shares and tasks, and the evaluation splits to keep out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from ...utils.optional_imports import import_optional
from ..catalog.messages import BoxStyle
from ..catalog.registry import find_format
from ..catalog.wordings import WORDINGS, Wordings

SHIPPED = Path(__file__).parents[2] / "recipes" / "mixtures"
PREFIX = "mixture:"
_MARKS = re.compile(r"\{\w+\}|<box>")  # of wordings
LARGEST = 1e12  # number that a recipe may name

Negatives = Literal["random", "popular", "adversarial"]


@dataclass(frozen=True)
class Share:
    """One data set of a mixture.

    Attributes:
        data: str, `NAME`, `NAME/SPLIT`, or either with `:FOLDER` below the mixture's root; without a folder, `NAME`.
        weight: float, factor of its share.
        cap: int, rows of which it is drawn at most, chosen by the seed of the mixture.
        tasks: tasks of which one is drawn for each row; by default the row's own.
        pack: int, questions about one image that are put into one conversation at most.
        boxes: style of boxes in the text; see `TurnWriter`.
        answers: `"frequent"` for the most frequent of several answers, `"sample"` for one that is drawn.
        negatives: names for questions about existence whose answer is no: `"random"`, `"popular"` (as often as they
            occur in the data), or `"adversarial"` (as often as they occur together with what is there).
    """

    data: str
    weight: float = 1.0
    cap: int | None = None
    tasks: tuple[str, ...] = ()
    pack: int = 1
    boxes: BoxStyle = "bare"
    answers: Literal["frequent", "sample"] = "frequent"
    negatives: Negatives = "random"

    @property
    def name(self) -> str:
        """Name of the data set, with its split if it has one."""
        return self.data.partition(":")[0]

    def word(self, root: str | os.PathLike) -> str:
        """Return the word that opens the data set below a root."""
        name, _, folder = self.data.partition(":")
        return f"{name}:{os.path.join(root, os.path.expanduser(folder or name.partition('/')[0]))}"


@dataclass(frozen=True)
class MixtureRecipe:
    """Recipe of a mixture.

    Attributes:
        shares: tuple of its data sets.
        root: str, folder of the data sets.
        exclude: words of evaluation splits whose images are left out, in the form of `Share.data`.
        temperature: float from 1 on; the share of a data set of n rows is proportional to n ** (1 / temperature).
        rows_per_epoch: int, rows of an epoch; by default as many as the data sets have.
        perceptual: bool, whether images are also compared by their perceptual hashes; all of them are then read once.
        prompts: wordings by kind, in place of the package's own.
    """

    shares: tuple[Share, ...]
    root: str = "."
    exclude: tuple[str, ...] = ()
    temperature: float = 1.0
    rows_per_epoch: int | None = None
    perceptual: bool = False
    prompts: Wordings = field(default_factory=lambda: WORDINGS)


def is_mixture_word(word: str) -> bool:
    """Return whether a word is `mixture:NAME`, or a YAML file."""
    return word.startswith(PREFIX) or word.lower().endswith((".yaml", ".yml"))


def find_mixture(word: str) -> Path:
    """Return the file of a mixture, of which the word is the path, or `mixture:` and the name of a shipped one.

    Raises:
        ValueError: when there is none of that name, with those that there are.
        FileNotFoundError: when there is no such file.
    """
    path = SHIPPED / f"{word.removeprefix(PREFIX)}.yaml" if word.startswith(PREFIX) else Path(word)
    if path.is_file():
        return path
    if word.startswith(PREFIX):
        names = ", ".join(sorted(one.stem for one in SHIPPED.glob("*.yaml")))
        raise ValueError(f"There is no mixture {word.removeprefix(PREFIX)!r}; the package has {names}.")
    raise FileNotFoundError(f"There is no file {word}.")


def read_mixture(path: str | os.PathLike) -> MixtureRecipe:
    """Read a recipe.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    yaml = import_optional("yaml")
    try:
        content = yaml.safe_load(Path(path).read_bytes())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    try:
        return _parse(content)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no mixture: {error}") from error


def _parse(content: Any) -> MixtureRecipe:
    known = [one.name for one in fields(MixtureRecipe) if one.name != "shares"]
    values = _checked(content, ["data", *known], "the recipe")
    entries = values.pop("data", None)
    if not isinstance(entries, list) or not entries:
        raise ValueError("`data` must be a list of data sets.")
    shares = tuple(_parse_share({"data": entry} if isinstance(entry, str) else entry) for entry in entries)
    if twice := {share.data for share in shares if sum(share.data == other.data for other in shares) > 1}:
        raise ValueError(f"{min(twice)} is there twice; give it several `tasks` instead.")
    excluded = values.get("exclude") or []
    values["exclude"] = tuple(map(_word, [excluded] if isinstance(excluded, str) else excluded))
    _require_number("`temperature`", values.get("temperature", 1.0), 1)
    if values.get("rows_per_epoch") is not None:
        _require_number("`rows_per_epoch`", values["rows_per_epoch"], 1, whole=True)
    for name, kind, what in (("root", str, "a folder"), ("perceptual", bool, "true or false")):
        if not isinstance(values.get(name, kind()), kind):
            raise ValueError(f"`{name}` must be {what}, got {values[name]!r:.80}.")
    if (prompts := values.pop("prompts", None)) is not None:
        values["prompts"] = {**WORDINGS, **_parse_prompts(prompts)}
    return MixtureRecipe(shares, **values)


def _parse_share(entry: Any) -> Share:
    values = _checked(entry, [one.name for one in fields(Share)], "a data set")
    if "data" not in values:
        raise ValueError(f"a data set has no `data`: {entry!r}.")
    values["data"] = _word(values["data"])
    values["tasks"] = tuple([tasks] if isinstance(tasks := values.get("tasks") or (), str) else tasks)
    share = Share(**values)
    _require_number(f"{share.data}: `weight`", share.weight, 0)
    _require_number(f"{share.data}: `pack`", share.pack, 1, whole=True)
    if share.cap is not None:
        _require_number(f"{share.data}: `cap`", share.cap, 1, whole=True)
    for name, choices in (
        ("boxes", get_args(BoxStyle)),
        ("answers", ("frequent", "sample")),
        ("negatives", get_args(Negatives)),
    ):
        if (value := getattr(share, name)) not in choices:
            raise ValueError(f"{share.data}: `{name}` must be one of {', '.join(choices)}, got {value!r}.")
    return share


def _require_number(name: str, value: Any, least: int, whole: bool = False) -> None:
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not is_number or not least <= value < LARGEST:
        raise ValueError(f"{name} must be a {'whole ' * whole}number from {least} on, got {value!r:.80}.")


def _parse_prompts(prompts: Any) -> dict[str, tuple[str, ...]]:
    values = _checked(prompts, list(WORDINGS), "`prompts`")
    for kind, wordings in values.items():
        if not isinstance(wordings, list) or not wordings or not all(isinstance(one, str) for one in wordings):
            raise ValueError(f"`prompts` of {kind} must be a list of texts, got {wordings!r:.80}.")
        needed = _MARKS.findall(WORDINGS[kind][0])
        for wording in wordings:
            if lacking := [mark for mark in needed if mark not in wording]:
                raise ValueError(f"`prompts` of {kind}: {wording!r:.80} lacks {' and '.join(lacking)}.")
    return {kind: tuple(wordings) for kind, wordings in values.items()}


def _word(word: Any) -> str:
    if not isinstance(word, str):
        raise ValueError(f"a data set must be a text such as NAME or NAME/SPLIT, got {word!r:.80}.")
    find_format(word.partition(":")[0].partition("/")[0])
    return word


def _checked(values: Any, known: list[str], what: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"{what} must be a mapping, got {values!r:.80}.")
    if unknown := [name for name in values if name not in known]:
        raise ValueError(f"{what} has the unknown key {unknown[0]!r}; known are {', '.join(known)}.")
    return dict(values)
