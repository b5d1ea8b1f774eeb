"""A mixture of data sets, whose rows are a function of (seed, epoch, position).

An epoch has a fixed number of positions. Each data set gets its share of them, and goes through its rows in a shuffled
order of its own, without repetition until all have been used, and on from epoch to epoch. Nothing is drawn in
sequence, so that a resumed run, any number of ranks and any number of workers see the same rows.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from transformers.utils import logging

from ...utils.seeding import generator
from ..catalog.messages import DERIVED, TurnWriter, conversation
from ..catalog.reading import CatalogReader
from ..catalog.registry import open_word
from ..catalog.row_store import guard_of, store_rows
from ..catalog.rows import CAPTION_TASKS, canonical
from ..path_guard import PathGuard
from .contamination import ExcludedPictures, PictureKeys
from .recipe import MixtureRecipe, Share
from .shuffle import Shuffle, split_evenly
from .vocabulary import Vocabulary

logger = logging.get_logger(__name__)


@dataclass
class Part:
    """A data set of a mixture, open.

    Attributes:
        share: its entry in the recipe.
        rows: stored rows.
        guard: rule for paths.
        order: int64 array, numbers of the rows that may be used, those of one conversation side by side.
        starts: int64 array of shape (units + 1,), where each conversation starts in `order`.
        excluded: int, rows that were left out because of their images.
        vocabulary: names of its objects, where questions about existence are asked.
    """

    share: Share
    rows: Any
    guard: PathGuard
    order: np.ndarray
    starts: np.ndarray
    excluded: int = 0
    vocabulary: Vocabulary | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def unit(self, number: int) -> np.ndarray:
        """Return the numbers of the rows of a conversation."""
        return self.order[self.starts[number] : self.starts[number + 1]]


class Mixture:
    """Rows of several data sets, mixed; map-style, and with `row_at` for a seed and an epoch.

    Args:
        parts: its data sets.
        recipe: its recipe.

    Attributes:
        names: list of the names of the data sets, under which the trainers log their losses.

    Raises:
        ValueError: when no data set has a share.
    """

    def __init__(self, parts: list[Part], recipe: MixtureRecipe) -> None:
        self.parts, self.recipe = parts, recipe
        self.names = [part.share.name for part in parts]
        weights = [part.share.weight * len(part) ** (1 / recipe.temperature) for part in parts]
        if not any(weights):
            raise ValueError("No data set of the mixture has a row with a weight above 0.")
        total = recipe.rows_per_epoch or sum(len(part) for part, weight in zip(parts, weights, strict=True) if weight)
        self.quotas = split_evenly(total, weights)
        self._ends = list(accumulate(self.quotas))
        self._writers = [TurnWriter(recipe.prompts, part.share.boxes, part.share.answers == "sample") for part in parts]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Return a row of the first epoch with seed 0."""
        return self.row_at(0, 0, position)

    def place(self, seed: int, epoch: int, position: int) -> tuple[int, int, int]:
        """Return the number of the data set, the number of the conversation in it, and how often it was used before."""
        slot = Shuffle(len(self), seed, epoch, "positions")(position)
        number = bisect_right(self._ends, slot)
        part, quota = self.parts[number], self.quotas[number]
        used, index = divmod(epoch * quota + slot - (self._ends[number] - quota), len(part))
        return number, Shuffle(len(part), seed, part.share.data, used)(index), used

    def row_at(self, seed: int, epoch: int, position: int) -> dict[str, Any]:
        """Return the row at a position of an epoch: messages, images, caption, data set and id.

        Raises:
            IndexError: when the position is outside of the epoch.
            ValueError: when the row's paths must not be read, or the row lacks what its task needs.
        """
        number, unit, used = self.place(seed, epoch, position)
        part = self.parts[number]
        random = generator(seed, used, f"{part.share.data}/{unit}", "mixture")
        numbers = part.unit(unit)
        rows = [part.rows[int(one)] for one in (random.permutation(numbers) if len(numbers) > 1 else numbers)]
        row = canonical(rows[0])
        if row["task"] != "dialogue":
            turns = [self._write(number, one, random) for one in rows]
            row["messages"] = conversation(turns, len(row["images"]))
            row["id"] = "+".join(one["id"] for one in rows)
        row["dataset"] = part.share.name
        return part.guard.check_row(row)

    def _write(self, number: int, row: dict[str, Any], random: np.random.Generator) -> Any:
        part = self.parts[number]
        tasks, name = part.share.tasks, ""
        task = tasks[int(random.integers(len(tasks)))] if tasks else row["task"]
        if task in DERIVED:
            present = sorted({region["phrase"] for region in row["regions"]} - {""})
            name = present[int(random.integers(len(present)))] if present else ""
            if part.vocabulary is not None and ((task == "existence" and random.random() < 0.5) or not present):
                name = part.vocabulary.draw_absent(set(present), part.share.negatives, random) or name
        return self._writers[number].write(row, task, random, name)

    def describe(self) -> str:
        """Return the data sets, their rows, and their shares as lines of text."""
        lines = [f"Mixture of {len(self.parts)} data sets, {len(self):,} rows an epoch:"]
        for part, quota in zip(self.parts, self.quotas, strict=True):
            left_out = f", {part.excluded:,} left out for evaluation" if part.excluded else ""
            lines.append(
                f"  {part.share.name}: {quota:,} ({quota / len(self):.1%}) of {len(part):,} conversations from "
                f"{len(part.order):,} rows{left_out}"
            )
        return "\n".join(lines)


def open_mixture(
    recipe: MixtureRecipe, root: str | os.PathLike | None = None, need_captions: bool = False, seed: int = 0
) -> Mixture:
    """Open the data sets of a recipe, leave out the images of its evaluation splits, and say how many those were.

    Args:
        recipe: recipe of the mixture.
        root: folder of the data sets, in place of the recipe's.
        need_captions: bool, whether rows must have a caption and a single image, as the first stage needs them.
        seed: int, seed by which the rows of a capped data set are chosen.

    Raises:
        FileNotFoundError: when a data set is missing.
        ValueError: when a data set cannot be read, or has nothing left.
    """
    root = root or recipe.root
    excluded = ExcludedPictures((_open(Share(word), root) for word in recipe.exclude), recipe.perceptual)
    mixture = Mixture([_open_part(share, root, excluded, need_captions, seed) for share in recipe.shares], recipe)
    if recipe.exclude:
        total = sum(part.excluded for part in mixture.parts)
        logger.warning(f"Left out {total:,} rows whose images are in {', '.join(recipe.exclude)}.")
    logger.warning(mixture.describe())
    return mixture


def _open(share: Share, root: str | os.PathLike) -> tuple[CatalogReader, Any, PathGuard]:
    reader = open_word(share.word(root))
    return reader, store_rows(reader), guard_of(reader, root)


def _open_part(
    share: Share, root: str | os.PathLike, excluded: ExcludedPictures, need_captions: bool, seed: int
) -> Part:
    reader, rows, guard = _open(share, root)
    if need_captions and (rows[0]["task"] not in CAPTION_TASKS or share.pack > 1):
        raise ValueError(f"{share.data} has no captions, or is packed; the first stage needs single captions.")
    _require_tasks(share, rows[0])
    pictures = PictureKeys(reader, rows)
    kept = np.flatnonzero(excluded.keep(pictures, guard))
    left_out = len(rows) - len(kept)
    if not len(kept):
        raise ValueError(f"{share.data} has no row whose image is not in an evaluation split.")
    if share.cap is not None and share.cap < len(kept):
        chosen = Shuffle(len(kept), seed, share.data, "cap")
        kept = kept[np.sort([chosen(place) for place in range(share.cap)])]
    order, starts = _pack(kept, pictures, share.pack)
    names = None
    if "existence" in share.tasks:
        regions = rows.select_columns(["regions"]).iter(1000)
        names = Vocabulary([one["phrase"] for one in row] for batch in regions for row in batch["regions"])
    return Part(share, rows, guard, order, starts, left_out, names)


def _require_tasks(share: Share, row: dict[str, Any]) -> None:
    """Try each task on a row, so that a wrong one is told before the training starts."""
    if share.tasks and row["task"] == "dialogue":
        raise ValueError(f"{share.data} is dialogue, which has no other `tasks`.")
    for task in share.tasks:
        if task in DERIVED and row["task"] != "detect":
            raise ValueError(f"{share.data}: the task {task!r} needs all objects of an image, as detection data has.")
        name = row["regions"][0]["phrase"] if row["regions"] else ""
        TurnWriter().write(canonical(row), task, None, name)


def _pack(kept: np.ndarray, pictures: PictureKeys, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows, those of one image side by side, and where conversations of at most `most` rows start."""
    if most == 1 or pictures.rows[0]["task"] == "dialogue":
        return kept, np.arange(len(kept) + 1)
    keys = pictures.first_pictures()[kept]
    by_picture = np.argsort(keys, kind="stable")
    order, keys = kept[by_picture], keys[by_picture]
    is_first = np.ones(len(keys), bool)
    is_first[1:] = keys[1:] != keys[:-1]
    first = np.flatnonzero(is_first)
    within = np.arange(len(keys)) - np.repeat(first, np.diff(np.append(first, len(keys))))
    return order, np.append(np.flatnonzero(within % most == 0), len(keys))
