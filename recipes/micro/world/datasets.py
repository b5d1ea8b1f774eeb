"""Rows of the world for the trainers: pictures with captions and dialogues, and dialogues about what is told."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ....processing_lyrics.spatial_text import format_box, format_object
from .questions import FAMILIES, ask_many, caption
from .scenes import COLORS, SHAPES, Scene, Split, draw_scene

_TURNS = (1, 2, 2, 4)  # of a dialogue; what was asked before distracts one who has yet to learn what is asked
_TURNS_ABOUT_PICTURES = (5,)  # once that is learned, since a picture costs more than a question about it
_SHARES = {"caption": 0.5}  # long as they are, captions would drown what one word answers
_SHARES_ABOUT_PICTURES = {
    "caption": 0.1,
    "existence": 2.0,  # to compare and to add up takes longer to learn than to look up
    "count": 6.0,
    "referring": 1.5,
    "description": 0.5,
}
_NOTHING = dict.fromkeys(FAMILIES, 0.0)
_SHARES_OF_LOOKUPS = _NOTHING | {"color": 1.0, "shape": 1.0, "reading": 1.0}
_SHARES_OF_GROUPS: dict[str, Mapping[str, float]] = {
    "everything": _SHARES,
    "lookups": _SHARES_OF_LOOKUPS,
    "counts": _NOTHING | {"count": 2.0, "existence": 1.0},
    "places": _NOTHING | {"referring": 2.0, "color": 0.3},
}
_TURNS_ABOUT_PLACES = (1, 2)
_ALIKE = 0.5  # of the scenes about which is asked how many, where many are to be alike
_TOGETHER = 64  # scenes that are drawn once for all dialogues about them, which are a group


@lru_cache(maxsize=_TOGETHER)
def _draw_scene(split: Split, number: int) -> Scene:
    return draw_scene(split, number)


def _place(index: int, scenes: int, dialogues: int) -> tuple[int, int]:
    """Which scene a row is about, and its how many-th dialogue it is: a group of scenes comes again and again."""
    group, place = divmod(index, _TOGETHER * dialogues)
    first = group * _TOGETHER
    again, place = divmod(place, min(_TOGETHER, scenes - first))
    return first + place, again


def _recolor(scene: Scene, random: np.random.Generator) -> Scene:
    """The scene with other colors, of which no picture is made."""
    other = dict(zip(COLORS, random.permutation(list(COLORS)).tolist(), strict=True))
    return replace(scene, objects=tuple(replace(thing, color=other[thing.color]) for thing in scene.objects))


def _make_alike(scene: Scene, random: np.random.Generator) -> Scene:
    """The scene in one to three colors and as many shapes, so that there are many of one; no picture is made of it."""
    colors, shapes = (random.permutation(list(words))[: random.integers(1, 4)].tolist() for words in (COLORS, SHAPES))
    alike = (
        replace(thing, color=str(random.choice(colors)), shape=str(random.choice(shapes))) for thing in scene.objects
    )
    return replace(scene, objects=tuple(alike))


class ToldRows(Dataset):
    """Dialogues about scenes whose objects the language model is told: rows of `messages` and `objects`.

    Rows come in groups that ask about the like of each other: mixed, short rows would be padded to long ones.

    Args:
        split, scenes: what they are about.
        first: number of the first scene.
        dialogues: about each scene.
        groups: what one group after the other asks about, again and again: `"everything"`, `"lookups"` (what
            color, what shape, which character), `"counts"` (how many, and whether any) or `"places"` (where something
            is), as far as a scene allows such questions.
        recolored: let each scene's colors change their places, which makes all combinations of color and shape.
        alike: let half of the scenes of `"counts"` have one to three colors and shapes: else it hardly ever takes more
            than two to be right.

    Raises:
        ValueError: when there is no group, or no such one.
    """

    def __init__(
        self,
        split: Split,
        scenes: int,
        first: int = 0,
        dialogues: int = 1,
        groups: Sequence[str] = ("everything",),
        recolored: bool = False,
        alike: bool = False,
    ) -> None:
        if not groups or not set(groups) <= set(_SHARES_OF_GROUPS):
            raise ValueError(f"groups must be some of {', '.join(_SHARES_OF_GROUPS)}, got {list(groups)}.")
        self.split: Split = split
        self.scenes, self.first, self.dialogues = scenes, first, dialogues
        self.groups, self.recolored, self.alike = tuple(groups), recolored, alike

    def __len__(self) -> int:
        return self.scenes * self.dialogues

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"Row {index} of {len(self)}.")
        place, again = _place(index, self.scenes, self.dialogues)
        number = self.first + place
        scene, random = _draw_scene(self.split, number), np.random.default_rng((number, 1, again))
        if self.recolored:
            scene = _recolor(scene, random)
        group = self.groups[index // _TOGETHER % len(self.groups)]
        if self.alike and group == "counts" and random.random() < _ALIKE:
            scene = _make_alike(scene, random)
        turns = _TURNS_ABOUT_PLACES if group == "places" else _TURNS
        messages = boxes_as_text(dialogue(scene, random, _SHARES_OF_GROUPS[group], turns))
        messages[0]["content"].insert(0, {"type": "image"})
        objects = [scene.objects[index] for index in random.permutation(len(scene.objects))]
        return {"messages": messages, "objects": objects}


def dialogue(
    scene: Scene,
    random: np.random.Generator,
    shares: Mapping[str, float] = _SHARES,
    turns: Sequence[int] = _TURNS,
    *,
    held_out: bool = True,
) -> list[dict[str, Any]]:
    """Messages of one turn or a few about a scene, without the picture; `held_out` is as in `ask_many`."""
    questions = ask_many(scene, int(random.choice(turns)), random, shares, held_out=held_out)
    if not questions:  # not every scene allows every kind, but captions all do
        questions = ask_many(scene, 1, random, {kind: float(kind == "caption") for kind in FAMILIES})
    return [message for question in questions for message in question.messages()]


def boxes_as_text(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages whose boxes are written out: without a picture there is nothing that they could be boxes of."""
    return [{**message, "content": [_as_text(block) for block in message["content"]]} for message in messages]


def _as_text(block: dict[str, Any]) -> dict[str, Any]:
    if block["type"] != "box":
        return block
    label = block.get("label")
    return {"type": "text", "text": format_object(label, block["box"]) if label else format_box(block["box"])}


class DialogueRows:
    """Scenes with dialogues that are made on the spot: when a scene comes again, it is asked something else.

    Whether there is what no training scene shows is not asked: the answer would always be no, and be learned.

    Args:
        split: of the scenes.
        scenes: how many there are.
        first: number of the first.
        dialogues: about each of them.
        lookups: how many rows at the beginning only look up, as a group of `ToldRows` does.
    """

    def __init__(self, split: Split, scenes: int, first: int = 0, dialogues: int = 1, lookups: int = 0) -> None:
        self.split: Split = split
        self.scenes, self.first, self.dialogues, self.lookups = scenes, first, dialogues, lookups

    def __len__(self) -> int:
        return self.scenes * self.dialogues

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"Row {index} of {len(self)}.")
        place, again = _place(index, self.scenes, self.dialogues)
        number = self.first + place
        scene = _draw_scene(self.split, number)
        shares, turns = _SHARES_ABOUT_PICTURES, _TURNS_ABOUT_PICTURES
        if index < self.lookups:
            shares, turns = _SHARES_OF_LOOKUPS, _TURNS
        messages = dialogue(scene, np.random.default_rng((number, 5, again)), shares, turns, held_out=False)
        return {"key": row_key(self.split, number), "image": scene.image, "messages": messages}


def row_key(split: Split, number: int) -> str:
    """What a scene is called in rows and stores."""
    return f"{split}/{number:06}"


def picture_rows(split: Split, count: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Rows with `key`, `image` (PNG), `caption` and `messages`, whose first one is taken to hold the picture."""
    for number in range(first, first + count):
        scene, random = draw_scene(split, number), np.random.default_rng((number, 2))
        file = io.BytesIO()
        scene.image.save(file, "PNG")
        yield {
            "key": row_key(split, number),
            "image": {"bytes": file.getvalue(), "path": None},
            "caption": caption(scene, random),
            "messages": dialogue(scene, random),
        }


def write_rows(out: str | os.PathLike, split: Split, count: int, first: int = 0) -> None:
    """Write `picture_rows` as a data set that `datasets.load_from_disk` opens."""
    import datasets

    block = {
        "type": datasets.Value("string"),
        "text": datasets.Value("string"),
        "label": datasets.Value("string"),
        "box": datasets.List(datasets.Value("float32")),
    }
    features = datasets.Features(
        {
            "key": datasets.Value("string"),
            "image": datasets.Image(),
            "caption": datasets.Value("string"),
            "messages": datasets.List({"role": datasets.Value("string"), "content": datasets.List(block)}),
        }
    )
    with tempfile.TemporaryDirectory() as cache:  # the library's own would outlive a change of the world
        rows = datasets.Dataset.from_generator(
            picture_rows,
            features=features,
            cache_dir=cache,
            gen_kwargs={"split": split, "count": count, "first": first},
        )
        rows.save_to_disk(out)
