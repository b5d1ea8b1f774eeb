"""Rows of the world for the ordinary trainers: pictures with captions and dialogues, and dialogues in words alone."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...processing_lyrics.spatial_text import SEPARATOR, format_box, format_object, format_objects
from .questions import Question, ask_many, caption, describe
from .world import Scene, SceneObject, Split, draw_scene

TURNS = 8
_SHARES = {"caption": 0.2}  # long as they are, captions would drown what one word answers
_SHARES_WITHOUT_BOXES = {"caption": 0.1, "relation": 0.0, "referring": 0.0, "description": 0.0}
_SHARES_OF_LOOKUPS = _SHARES_WITHOUT_BOXES | {"caption": 0.0, "existence": 0.0, "count": 0.0}
_SHARE_WITH_BOXES = 0.3
_SHARE_REPEATED = 0.5  # of the first rows
_LOOKUPS = 10


def scene_as_text(scene: Scene, random: np.random.Generator, boxes: bool = True) -> str:
    """The scene in words, as the spatial text of its objects: what someone who does not see it can be told."""
    things = [scene.objects[index] for index in random.permutation(len(scene.objects))]
    words = [describe(thing).split(" ", 1)[1] for thing in things]
    if random.random() < 0.5:  # what follows a word is looked up sooner than what precedes it
        words = [_shape_first(thing) for thing in things]
    return format_objects(words, [thing.box for thing in things]) if boxes else SEPARATOR.join(words)


def _shape_first(thing: SceneObject) -> str:
    words = f"{thing.shape} {thing.color} {thing.size}"
    return words if thing.character is None else f"{words} with the character {thing.character}"


class WordRows:
    """Dialogues about scenes that are told in words: `count` rows of `messages`.

    Most are told without boxes, and not asked about places: to look something up in few words is learned sooner. The
    first rows only look up, and repeat what was told: nothing else is learned before that is.

    Args:
        split, count: of the scenes.
        lookups: how many rows at the beginning only look up.
        first: number of the first scene.
    """

    def __init__(self, split: Split, count: int, lookups: int = 0, first: int = 0) -> None:
        self.split: Split = split
        self.count, self.lookups, self.first = count, lookups, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(f"Row {index} of {self.count}.")
        number = self.first + index
        scene, random = draw_scene(self.split, number), np.random.default_rng((number, 1))
        looks_up = index < self.lookups
        boxes = random.random() < _SHARE_WITH_BOXES and not looks_up
        told = scene_as_text(scene, random, boxes)
        shares = _SHARES_OF_LOOKUPS if looks_up else _SHARES if boxes else _SHARES_WITHOUT_BOXES
        messages = boxes_as_text(dialogue(scene, random, _LOOKUPS if looks_up else TURNS, shares))
        if not messages or (looks_up and random.random() < _SHARE_REPEATED):
            messages = Question("repetition", "Repeat it.", told).messages() + messages
        messages[0]["content"].insert(0, {"type": "text", "text": f"{told}\n"})
        return {"messages": messages}


def dialogue(
    scene: Scene, random: np.random.Generator, turns: int = TURNS, shares: Mapping[str, float] = _SHARES
) -> list[dict[str, Any]]:
    """Messages of several turns about a scene, without the picture."""
    questions = ask_many(scene, turns, random, shares)
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

    Args:
        split: of the scenes.
        scenes: how many there are.
        first: number of the first.
        dialogues: about each of them.
    """

    def __init__(self, split: Split, scenes: int, first: int = 0, dialogues: int = 1) -> None:
        self.split: Split = split
        self.scenes, self.first, self.dialogues = scenes, first, dialogues

    def __len__(self) -> int:
        return self.scenes * self.dialogues

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"Row {index} of {len(self)}.")
        again, place = divmod(index, self.scenes)
        number = self.first + place
        scene = draw_scene(self.split, number)
        messages = dialogue(scene, np.random.default_rng((number, 5, again)))
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
