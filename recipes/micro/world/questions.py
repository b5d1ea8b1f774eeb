"""What can be asked about a scene, with the right answers: the task families of the paper, in the small."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .scenes import COLORS, HELD_OUT, SHAPES, SIZES, Scene, SceneObject

Random = np.random.Generator

_CLEARLY = 1.3  # how much larger the largest object must be than the next
_APART = 0.1  # how far apart, in shares of the picture, two middles must be to be left of or above each other
_POPULAR = [f"{color} {shape}" for color in ("red", "blue") for shape in SHAPES[:3]]


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        kind: its family, such as `"count"`.
        text: the question.
        answer: the right answer as text; for `"referring"` the name of the object, whose box follows it.
        box: xyxy in [0, 1], of the answer for `"referring"`, of the question for `"description"`.
        variant: of the family: whose negatives, what was counted.
    """

    kind: str
    text: str
    answer: str
    box: tuple[float, float, float, float] | None = None
    variant: str = ""

    def messages(self) -> list[dict[str, Any]]:
        """A turn of the user and one of the assistant, without a picture; boxes are content of their own."""
        asked: list[dict[str, Any]] = [{"type": "text", "text": self.text}]
        answered: list[dict[str, Any]] = [{"type": "text", "text": self.answer}]
        if self.kind == "referring":
            answered = [{"type": "box", "box": list(self.box or ()), "label": self.answer}]
        elif self.kind == "description":
            asked = [{"type": "text", "text": f"{self.text} "}, {"type": "box", "box": list(self.box or ())}]
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def ask(scene: Scene, kind: str, random: Random) -> Question | None:
    """A question of a family about a scene, or `None` where the scene allows none."""
    return FAMILIES[kind](scene, random)


def ask_many(
    scene: Scene, count: int, random: Random, shares: Mapping[str, float] | None = None, *, held_out: bool = True
) -> list[Question]:
    """Up to `count` different questions, of random families, which are equally frequent or have `shares`.

    Without `held_out` none names a combination of color and shape that no training scene shows.
    """
    questions: dict[Any, Question] = {}
    weights = None if shares is None else np.array([shares.get(kind, 1.0) for kind in FAMILIES])
    for kind in random.choice(list(FAMILIES), 3 * count, p=None if weights is None else weights / weights.sum()):
        if len(questions) == count:
            break
        question = ask(scene, str(kind), random)
        if question is not None and (held_out or novelty(question) != "held out"):
            questions.setdefault((question.text, question.kind == "description" and question.box), question)
    return list(questions.values())


def novelty(question: Question) -> str | None:
    """`"held out"` or `"shown"`: whether training scenes show the combination that question and right answer name.

    `None` where they do not name one.
    """
    words = set(re.findall(r"[a-z]+", f"{question.text} {question.answer}"))
    colors, shapes = words.intersection(COLORS), words.intersection(SHAPES)
    if len(colors) != 1 or len(shapes) != 1:
        return None
    return "held out" if (colors.pop(), shapes.pop()) in HELD_OUT else "shown"


# ---------------------------------------------------------------- words


def name(thing: SceneObject) -> str:
    """`red circle`."""
    return f"{thing.color} {thing.shape}"


def an(words: str) -> str:
    """With its article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(shape: str) -> str:
    """Of a shape's name."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def describe(thing: SceneObject) -> str:
    """`a small red circle`, with its character if it has one."""
    words = an(f"{thing.size} {name(thing)}")
    return words if thing.character is None else f"{words} with the character {thing.character}"


def all_names() -> dict[str, tuple[str, ...]]:
    """Every way in which a question names objects, by shape, color or both, with a size or without; and its words."""
    sized = [(), *((size,) for size in SIZES)]
    by_color = [(*size, color, kind) for size, color, kind in itertools.product(sized, COLORS, [*SHAPES, "object"])]
    by_shape = [(size, shape) for size, shape in itertools.product(SIZES, SHAPES)]
    several = {f"{color} objects": (color, "object") for color in COLORS} | {
        plural(shape): (shape,) for shape in SHAPES
    }
    return {" ".join(words): words for words in [*by_color, *by_shape]} | several


def _unique(scene: Scene, *wordings: Callable[[SceneObject], str]) -> Iterator[tuple[SceneObject, str]]:
    """Objects that some wording names alone, with the first that does."""
    counts = [Counter(wording(thing) for thing in scene.objects) for wording in wordings]
    for thing in scene.objects:
        for wording, count in zip(wordings, counts, strict=True):
            if count[wording(thing)] == 1:
                yield thing, wording(thing)
                break


def _pick(random: Random, options: Any) -> Any:
    options = list(options)
    return options[int(random.integers(len(options)))] if options else None


def _yes(true: bool) -> str:
    return "yes" if true else "no"


# ---------------------------------------------------------------- families


def _caption(scene: Scene, random: Random) -> Question:
    text = _pick(random, ("Describe the picture.", "What does the picture show?", "What do you see?"))
    return Question("caption", text, caption(scene, random))


def caption(scene: Scene, random: Random) -> str:
    """A caption in one of several styles; it names all objects, or says how many there are and names some."""
    things = [scene.objects[index] for index in random.permutation(len(scene.objects))]
    if random.random() < 0.3:
        count = f"{len(things)} objects"
        some = " and ".join(describe(thing) for thing in things[:2])
        return _pick(random, (f"{count}, among them {some}.", f"A picture of {count} with {some}."))
    groups = Counter(map(name, things))
    parts = [an(words) if count == 1 else f"{count} {_plural_name(words)}" for words, count in groups.items()]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return _pick(random, (f"{listed}.", f"There is {listed}.", f"A picture of {listed}.", f"It shows {listed}."))


def _plural_name(words: str) -> str:
    color, shape = words.split()
    return f"{color} {plural(shape)}"


def _existence(scene: Scene, random: Random) -> Question | None:
    present = {name(thing) for thing in scene.objects}
    variant = "random"
    if true := random.random() < 0.5:
        asked = _pick(random, sorted(present))
    else:
        variant = _pick(random, ("random", "popular", "adversarial"))
        every = [f"{color} {shape}" for color, shape in itertools.product(COLORS, SHAPES)]
        mixed = {f"{one.color} {other.shape}" for one, other in itertools.permutations(scene.objects, 2)}
        pool = {"random": every, "popular": _POPULAR, "adversarial": sorted(mixed)}[variant]
        asked = _pick(random, [words for words in pool if words not in present])
        if asked is None:
            return None
    text = _pick(random, (f"Is there {an(asked)}?", f"Do you see {an(asked)}?"))
    return Question("existence", text, _yes(true), variant=variant)


def _count(scene: Scene, random: Random) -> Question:
    """Of the answers that a scene allows each is as likely, since of most it shows one, and that would be the guess."""
    variant = _pick(random, ("shape", "color", "all"))
    if variant == "all":
        return Question("count", "How many objects are there?", str(len(scene.objects)), variant=variant)
    own = [getattr(thing, variant) for thing in scene.objects]
    counts = {word: own.count(word) for word in (SHAPES if variant == "shape" else COLORS)}
    answer = _pick(random, sorted(set(counts.values())))
    asked = _pick(random, [word for word, count in counts.items() if count == answer])
    words = plural(asked) if variant == "shape" else f"{asked} objects"
    return Question("count", f"How many {words} are there?", str(answer), variant=variant)


def _color(scene: Scene, random: Random) -> Question | None:
    chosen = _pick(random, _unique(scene, lambda one: one.shape, lambda one: f"{one.size} {one.shape}"))
    return chosen and Question("color", f"What color is the {chosen[1]}?", chosen[0].color)


def _shape(scene: Scene, random: Random) -> Question | None:
    by_color = (lambda one: f"{one.color} object", lambda one: f"{one.size} {one.color} object")
    chosen = _pick(random, _unique(scene, *by_color))
    return chosen and Question("shape", f"What shape is the {chosen[1]}?", chosen[0].shape)


def _relation(scene: Scene, random: Random) -> Question | None:
    by_area = sorted(scene.objects, key=lambda one: one.area, reverse=True)
    if random.random() < 0.25:
        if by_area[0].area < _CLEARLY * by_area[1].area:
            return None
        return Question("relation", "Which object is the largest?", name(by_area[0]), variant="largest")
    named = list(_unique(scene, name))
    if len(named) < 2:
        return None
    first, second = (named[index] for index in random.permutation(len(named))[:2])
    axis = int(random.integers(2))
    gap = _middle(second[0], axis) - _middle(first[0], axis)
    if abs(gap) < _APART:
        return None
    way = (("left of", "right of"), ("above", "below"))[axis][int(random.integers(2))]
    true = (gap > 0) == (way in ("left of", "above"))
    return Question("relation", f"Is the {first[1]} {way} the {second[1]}?", _yes(true), variant="place")


def _middle(thing: SceneObject, axis: int) -> float:
    return (thing.box[axis] + thing.box[axis + 2]) / 2


def _reading(scene: Scene, random: Random) -> Question | None:
    bearers = [(thing, words) for thing, words in _unique(scene, name) if thing.character is not None]
    chosen = _pick(random, bearers)
    return chosen and Question("reading", f"Which character is on the {chosen[1]}?", str(chosen[0].character))


def _referring(scene: Scene, random: Random) -> Question | None:
    chosen = _pick(random, _unique(scene, name, lambda one: f"{one.size} {name(one)}"))
    if chosen is None:
        return None
    text = _pick(random, (f"Where is the {chosen[1]}?", f"Find the {chosen[1]}."))
    return Question("referring", text, chosen[1], chosen[0].box)


def _description(scene: Scene, random: Random) -> Question:
    thing = _pick(random, scene.objects)
    return Question("description", "What is this?", describe(thing), thing.box)


FAMILIES: dict[str, Callable[[Scene, Random], Question | None]] = {
    "caption": _caption,
    "existence": _existence,
    "count": _count,
    "color": _color,
    "shape": _shape,
    "relation": _relation,
    "reading": _reading,
    "referring": _referring,
    "description": _description,
}
