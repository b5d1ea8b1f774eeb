"""Questions about scenes with their correct answers: small versions of the paper's task families."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .objects import COLORS, HELD_OUT, SHAPES, SIZES, Scene, SceneObject

Random = np.random.Generator

_MIN_AREA_RATIO = 1.3  # of the largest object to the second largest, for a question about the largest
_MIN_DISTANCE = 0.1  # between two centers along an axis, in shares of the image, for a question about their order
_POPULAR_NAMES = [f"{color} {shape}" for color in ("red", "blue") for shape in SHAPES[:3]]


@dataclass(frozen=True)
class Question:
    """Question about a scene with its answer.

    Attributes:
        kind: key of `FAMILIES`, such as `"count"`.
        text: the question.
        answer: the correct answer. For `"referring"` it is the name of the object, which `box` follows.
        box: xyxy in [0, 1]. It belongs to the answer for `"referring"`, and to the question for `"description"`.
        variant: subtype within the family, such as the kind of negative or the counted attribute.
    """

    kind: str
    text: str
    answer: str
    box: tuple[float, float, float, float] | None = None
    variant: str = ""

    def messages(self) -> list[dict[str, Any]]:
        """Return the user's and the assistant's message without the image. A box is a content block of its own."""
        asked: list[dict[str, Any]] = [{"type": "text", "text": self.text}]
        answered: list[dict[str, Any]] = [{"type": "text", "text": self.answer}]
        if self.kind == "referring":
            answered = [{"type": "box", "box": list(self.box or ()), "label": self.answer}]
        elif self.kind == "description":
            asked = [{"type": "text", "text": f"{self.text} "}, {"type": "box", "box": list(self.box or ())}]
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def ask(scene: Scene, kind: str, random: Random) -> Question | None:
    """Return a question of a family about a scene, or `None` if the scene allows none."""
    return FAMILIES[kind](scene, random)


def ask_many(
    scene: Scene, count: int, random: Random, weights: Mapping[str, float] | None = None, *, held_out: bool = True
) -> list[Question]:
    """Return different questions about a scene, from randomly chosen families.

    Args:
        scene: scene to ask about.
        count: maximum number of questions.
        random: random number generator.
        weights: relative frequencies of families, 1 without an entry. By default all are equally frequent.
        held_out: whether questions may name a combination of color and shape that no training scene shows.
    """
    questions: dict[Any, Question] = {}
    p = None if weights is None else np.array([weights.get(kind, 1.0) for kind in FAMILIES])
    for kind in random.choice(list(FAMILIES), 3 * count, p=None if p is None else p / p.sum()):
        if len(questions) == count:
            break
        question = ask(scene, str(kind), random)
        if question is not None and (held_out or novelty(question) != "held out"):
            questions.setdefault((question.text, question.kind == "description" and question.box), question)
    return list(questions.values())


def novelty(question: Question) -> str | None:
    """Return whether training scenes show the combination of color and shape that question and answer name.

    Returns:
        `"held out"` or `"shown"`, or `None` if they do not name exactly one color and one shape.
    """
    words = set(re.findall(r"[a-z]+", f"{question.text} {question.answer}"))
    colors, shapes = words.intersection(COLORS), words.intersection(SHAPES)
    if len(colors) != 1 or len(shapes) != 1:
        return None
    return "held out" if (colors.pop(), shapes.pop()) in HELD_OUT else "shown"


# ---------------------------------------------------------------- words


def name(thing: SceneObject) -> str:
    """Return the name of an object, such as `red circle`."""
    return f"{thing.color} {thing.shape}"


def with_article(words: str) -> str:
    """Prepend `a` or `an`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(words: str) -> str:
    """Return the plural of words that end with a shape."""
    return f"{words}es" if words.endswith("s") else f"{words}s"


def describe(thing: SceneObject) -> str:
    """Return a description such as `a small red circle`, with the object's character if it has one."""
    words = with_article(f"{thing.size} {name(thing)}")
    return words if thing.character is None else f"{words} with the character {thing.character}"


def all_names() -> dict[str, tuple[str, ...]]:
    """Return every phrase by which questions name objects, mapped to the words that it consists of."""
    sized = [(), *((size,) for size in SIZES)]
    by_color = [(*size, color, kind) for size, color, kind in itertools.product(sized, COLORS, [*SHAPES, "object"])]
    by_shape = [(size, shape) for size, shape in itertools.product(SIZES, SHAPES)]
    several = {f"{color} objects": (color, "object") for color in COLORS} | {
        plural(shape): (shape,) for shape in SHAPES
    }
    return {" ".join(words): words for words in [*by_color, *by_shape]} | several


def _unique(scene: Scene, *wordings: Callable[[SceneObject], str]) -> Iterator[tuple[SceneObject, str]]:
    """Yield each object that a wording identifies, with the first such wording."""
    counts = [Counter(wording(thing) for thing in scene.objects) for wording in wordings]
    for thing in scene.objects:
        for wording, count in zip(wordings, counts, strict=True):
            if count[wording(thing)] == 1:
                yield thing, wording(thing)
                break


def _pick(random: Random, options: Any) -> Any:
    options = list(options)
    return options[int(random.integers(len(options)))] if options else None


# ---------------------------------------------------------------- families


def _caption(scene: Scene, random: Random) -> Question:
    text = _pick(random, ("Describe the picture.", "What does the picture show?", "What do you see?"))
    return Question("caption", text, caption(scene, random))


def caption(scene: Scene, random: Random) -> str:
    """Return a caption in one of several styles. It names all objects, or counts them and describes two."""
    things = [scene.objects[index] for index in random.permutation(len(scene.objects))]
    if random.random() < 0.3:
        count = f"{len(things)} objects"
        some = " and ".join(describe(thing) for thing in things[:2])
        return _pick(random, (f"{count}, among them {some}.", f"A picture of {count} with {some}."))
    groups = Counter(map(name, things))
    parts = [with_article(words) if count == 1 else f"{count} {plural(words)}" for words, count in groups.items()]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return _pick(random, (f"{listed}.", f"There is {listed}.", f"A picture of {listed}.", f"It shows {listed}."))


def _existence(scene: Scene, random: Random) -> Question | None:
    present = {name(thing) for thing in scene.objects}
    variant = "random"
    if true := random.random() < 0.5:
        asked = _pick(random, sorted(present))
    else:
        variant = _pick(random, ("random", "popular", "adversarial"))
        every = [f"{color} {shape}" for color, shape in itertools.product(COLORS, SHAPES)]
        mixed = {f"{one.color} {other.shape}" for one, other in itertools.permutations(scene.objects, 2)}
        pool = {"random": every, "popular": _POPULAR_NAMES, "adversarial": sorted(mixed)}[variant]
        asked = _pick(random, [words for words in pool if words not in present])
        if asked is None:
            return None
    text = _pick(random, (f"Is there {with_article(asked)}?", f"Do you see {with_article(asked)}?"))
    return Question("existence", text, "yes" if true else "no", variant=variant)


def _count(scene: Scene, random: Random) -> Question:
    """Return a question whose possible answers are equally likely; otherwise most answers would be 1 or 0."""
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
        if by_area[0].area < _MIN_AREA_RATIO * by_area[1].area:
            return None
        return Question("relation", "Which object is the largest?", name(by_area[0]), variant="largest")
    named = list(_unique(scene, name))
    if len(named) < 2:
        return None
    first, second = (named[index] for index in random.permutation(len(named))[:2])
    axis = int(random.integers(2))
    first_center, second_center = ((one.box[axis] + one.box[axis + 2]) / 2 for one, _ in (first, second))
    gap = second_center - first_center
    if abs(gap) < _MIN_DISTANCE:
        return None
    way = (("left of", "right of"), ("above", "below"))[axis][int(random.integers(2))]
    true = (gap > 0) == (way in ("left of", "above"))
    text = f"Is the {first[1]} {way} the {second[1]}?"
    return Question("relation", text, "yes" if true else "no", variant="place")


def _reading(scene: Scene, random: Random) -> Question | None:
    readable = [(thing, words) for thing, words in _unique(scene, name) if thing.character is not None]
    chosen = _pick(random, readable)
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
