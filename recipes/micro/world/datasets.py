"""Data sets of the micro world: dialogues about objects given as symbols, dialogues about images, and stored rows."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ....processing_lyrics.spatial_text import format_box, format_object
from .objects import COLORS, SHAPES, Scene, Split
from .questions import FAMILIES, Question, ask_many, caption
from .scenes import draw_scene
from .wordings import Wording

_SCENES_PER_GROUP = 64  # a group of scenes is drawn once for all dialogues about it
_EMPTY_PROBABILITY = 0.02  # of a scene without objects, given as symbols
_ALIKE_PROBABILITY = 0.5  # that the objects of a counting scene are restricted to a few colors and shapes

# Numbers of turns of a dialogue, drawn with equal probability. Earlier turns distract a model that does not yet
# understand the question, so that dialogues about symbols are short. Later an image costs more than one more turn.
_TURNS = (1, 2, 2, 4)
_TURNS_ABOUT_PLACES = (1, 2)
_TURNS_ABOUT_IMAGES = (5,)

# Relative frequencies of the families of questions, 1 without an entry.
_WEIGHTS = {
    "caption": 0.5,
    "outside": 0.4,
    "premise": 1.5,
}  # captions have many tokens, which would outweigh answers of one word
_WEIGHTS_ABOUT_IMAGES = {
    "caption": 0.1,
    "existence": 2.0,  # comparing and counting take longer to learn than looking up an attribute
    "count": 6.0,
    "referring": 1.5,
    "description": 0.5,
    "size": 0.5,
    "premise": 2.0,
    "outside": 0.4,
}
_NO_FAMILY = dict.fromkeys(FAMILIES, 0.0)
_LOOKUP_WEIGHTS = _NO_FAMILY | {"color": 1.0, "shape": 1.0, "size": 0.5, "reading": 1.0}
_GROUP_WEIGHTS: dict[str, Mapping[str, float]] = {
    "everything": _WEIGHTS,
    "lookups": _LOOKUP_WEIGHTS,
    "counts": _NO_FAMILY | {"count": 2.0, "existence": 1.0},
    "places": _NO_FAMILY | {"referring": 2.0, "color": 0.3},
    "premises": _NO_FAMILY | {"premise": 2.0, "existence": 1.0, "follow_up": 1.0, "outside": 0.5, "reading": 0.5},
}

_draw_cached_scene = lru_cache(maxsize=_SCENES_PER_GROUP)(draw_scene)


@dataclass(eq=False)
class _SceneDialogues(Dataset):
    """Data set with a row for each dialogue about each scene.

    Rows of 64 scenes follow each other, then further dialogues about the same scenes, then the next 64 scenes.

    Args:
        split: split of the scenes.
        scenes: number of scenes.
        first: number of the first scene.
        dialogues: number of dialogues about each scene.
    """

    split: Split
    scenes: int
    first: int = 0
    dialogues: int = 1

    def __len__(self) -> int:
        return self.scenes * self.dialogues

    def locate(self, index: int) -> tuple[int, int]:
        """Return the scene of a row, and how many dialogues about that scene precede it.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Row {index} is out of range: there are {len(self)} rows.")
        group, place = divmod(index, _SCENES_PER_GROUP * self.dialogues)
        first = group * _SCENES_PER_GROUP
        dialogue_number, place = divmod(place, min(_SCENES_PER_GROUP, self.scenes - first))
        return self.first + first + place, dialogue_number


@dataclass(eq=False)
class SymbolicDialogues(_SceneDialogues):
    """Dialogues about scenes whose objects are given as symbols: rows of `messages` and `objects`.

    Each run of 64 rows asks about one group of questions. Mixed rows would differ in length and cost padding.

    Args:
        split: split of the scenes.
        scenes: number of scenes.
        first: number of the first scene.
        dialogues: number of dialogues about each scene.
        groups: groups of questions, which alternate: `"everything"`, `"lookups"` (color, shape and character of an
            object), `"counts"` (count and existence), `"places"` (boxes) or `"premises"` (what is there, and what not).
        recolored: whether the colors of a scene are permuted, so that all combinations of color and shape occur.
        alike: whether half of the `"counts"` scenes are restricted to one to three colors and shapes. Otherwise few
            correct counts exceed two.
        wording: kind of wording of the questions, see `word`.

    Raises:
        ValueError: `groups` is empty or names an unknown group.
    """

    groups: Sequence[str] = ("everything",)
    recolored: bool = False
    alike: bool = False
    wording: Wording = "varied"

    def __post_init__(self) -> None:
        if not self.groups or not set(self.groups) <= set(_GROUP_WEIGHTS):
            raise ValueError(f"groups must be some of {', '.join(_GROUP_WEIGHTS)}, got {list(self.groups)}.")

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, dialogue_number = self.locate(index)
        scene, random = _draw_cached_scene(self.split, number), np.random.default_rng((number, 1, dialogue_number))
        if self.recolored:
            scene = _permute_colors(scene, random)
        group = self.groups[index // _SCENES_PER_GROUP % len(self.groups)]
        if random.random() < _EMPTY_PROBABILITY:
            scene = replace(scene, objects=())
        if self.alike and group in ("counts", "premises") and random.random() < _ALIKE_PROBABILITY:
            scene = _restrict_words(scene, random)
        turns = _TURNS_ABOUT_PLACES if group == "places" else _TURNS
        messages = boxes_as_text(_dialogue(scene, random, _GROUP_WEIGHTS[group], turns, wording=self.wording))
        messages[0]["content"].insert(0, {"type": "image"})
        objects = [scene.objects[index] for index in random.permutation(len(scene.objects))]
        return {"messages": messages, "objects": objects}


@dataclass(eq=False)
class DialogueRows(_SceneDialogues):
    """Dialogues about images: rows of `key`, `image` and `messages`. Each dialogue about a scene asks other questions.

    Questions name no combination of color and shape that training scenes never show: the answer would always be no.

    Args:
        split: split of the scenes.
        scenes: number of scenes.
        first: number of the first scene.
        dialogues: number of dialogues about each scene.
        lookups: number of rows at the beginning that ask about color, shape and character only.
    """

    lookups: int = 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, dialogue_number = self.locate(index)
        scene, random = _draw_cached_scene(self.split, number), np.random.default_rng((number, 5, dialogue_number))
        weights, turns = _WEIGHTS_ABOUT_IMAGES, _TURNS_ABOUT_IMAGES
        if index < self.lookups:
            weights, turns = _LOOKUP_WEIGHTS, _TURNS
        messages = _dialogue(scene, random, weights, turns, held_out=False)
        return {"key": _row_key(self.split, number), "image": scene.image, "messages": messages}


@dataclass(eq=False)
class QuestionRows(_SceneDialogues):
    """Single questions about images, for rewards: rows of `key`, `image`, `prompt` and what is expected of the answer.

    Args:
        split: split of the scenes.
        scenes: number of scenes.
        first: number of the first scene.
        dialogues: number of questions about each scene.
        kinds: kinds of questions, keys of `FAMILIES`.
        wording: kind of wording of the questions, see `word`.

    Raises:
        ValueError: a kind is unknown.
    """

    kinds: Sequence[str] = ("count",)
    wording: Wording = "varied"

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(FAMILIES):
            raise ValueError(f"kinds must be some of {', '.join(FAMILIES)}, got {list(self.kinds)}.")

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, question_number = self.locate(index)
        scene, random = _draw_cached_scene(self.split, number), np.random.default_rng((number, 8, question_number))
        weights = _NO_FAMILY | dict.fromkeys(self.kinds, 1.0)
        questions = ask_many(scene, 1, random, weights, held_out=False, wording=self.wording)
        if not questions:
            raise ValueError(f"Scene {number} allows no question about {', '.join(self.kinds)}.")
        *asked, _ = boxes_as_text(questions[0].messages())
        asked[0]["content"].insert(0, {"type": "image"})
        return {
            "key": _row_key(self.split, number),
            "image": scene.image,
            "prompt": asked,
            **expected_columns(questions[0]),
        }


def expected_columns(question: Question) -> dict[str, Any]:
    """Return what the rewards of `trainers/rewards.py` expect of the answer to a question."""
    if question.wants_box:
        return {"expected_boxes": [list(question.box or ())]}
    if question.answer in ("yes", "no"):
        return {"expected_existence": question.answer == "yes"}
    if question.kind == "count":
        return {"expected_count": int(question.answer)}
    return {"expected_answer": question.answer}


def _permute_colors(scene: Scene, random: np.random.Generator) -> Scene:
    """Return the scene with permuted color words. Its image keeps the former colors and must not be used."""
    other: dict[str, str] = dict(zip(COLORS, random.permutation(COLORS).tolist(), strict=True))
    return replace(scene, objects=tuple(replace(thing, color=other[thing.color]) for thing in scene.objects))


def _restrict_words(scene: Scene, random: np.random.Generator) -> Scene:
    """Return the scene with one to three colors and shapes, so that many objects are alike. Its image is not used."""
    colors, shapes = (random.permutation(list(words))[: random.integers(1, 4)].tolist() for words in (COLORS, SHAPES))
    alike = (
        replace(thing, color=str(random.choice(colors)), shape=str(random.choice(shapes))) for thing in scene.objects
    )
    return replace(scene, objects=tuple(alike))


def _dialogue(
    scene: Scene,
    random: np.random.Generator,
    weights: Mapping[str, float] = _WEIGHTS,
    turns: Sequence[int] = _TURNS,
    *,
    held_out: bool = True,
    wording: Wording = "varied",
) -> list[dict[str, Any]]:
    """Return the messages of a dialogue without the image."""
    questions = ask_many(scene, int(random.choice(turns)), random, weights, held_out=held_out, wording=wording)
    if not questions:  # a scene may allow no question of these families, but it always allows a caption
        questions = ask_many(scene, 1, random, _NO_FAMILY | {"caption": 1.0}, wording=wording)
    return [message for question in questions for message in question.messages()]


def boxes_as_text(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages whose box blocks are text blocks. A box block would need an image that it refers to."""
    return [{**message, "content": [_as_text(block) for block in message["content"]]} for message in messages]


def _as_text(block: dict[str, Any]) -> dict[str, Any]:
    if block["type"] != "box":
        return block
    label = block.get("label")
    return {"type": "text", "text": format_object(label, block["box"]) if label else format_box(block["box"])}


def _row_key(split: Split, number: int) -> str:
    return f"{split}/{number:06}"


@dataclass(eq=False)
class CaptionRows(_SceneDialogues):
    """Scenes with a caption each, drawn when they are read: rows of `key`, `image` and `caption`."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, _ = self.locate(index)
        scene, random = draw_scene(self.split, number), np.random.default_rng((number, 2))
        return {"key": _row_key(self.split, number), "image": scene.image, "caption": caption(scene, random)}


def picture_rows(split: Split, count: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Yield rows of `key`, `image` (PNG), `caption` and `messages` about scenes `first` to `first + count - 1`.

    The image belongs to the first message.
    """
    for number in range(first, first + count):
        scene, random = draw_scene(split, number), np.random.default_rng((number, 2))
        file = io.BytesIO()
        scene.image.save(file, "PNG")
        yield {
            "key": _row_key(split, number),
            "image": {"bytes": file.getvalue(), "path": None},
            "caption": caption(scene, random),
            "messages": _dialogue(scene, random),
        }


def write_rows(out: str | os.PathLike, split: Split, count: int, first: int = 0) -> None:
    """Write `picture_rows` as a data set for `datasets.load_from_disk`."""
    import datasets

    text, box = datasets.Value("string"), datasets.List(datasets.Value("float32"))
    block = {"type": text, "text": text, "label": text, "box": box}
    message = {"role": text, "content": datasets.List(block)}
    features = datasets.Features(
        {"key": text, "image": datasets.Image(), "caption": text, "messages": datasets.List(message)}
    )
    scenes = {"split": split, "count": count, "first": first}
    # The library's own cache would return old rows after a change of the world.
    with tempfile.TemporaryDirectory() as cache:
        rows = datasets.Dataset.from_generator(picture_rows, features=features, cache_dir=cache, gen_kwargs=scenes)
        rows.save_to_disk(out)
