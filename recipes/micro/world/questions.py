"""Questions about scenes with their correct answers: small versions of the paper's task families."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .names import ANY, describe, meanings, name, paraphrase, plural, with_article
from .objects import COLORS, HELD_OUT, SHAPES, Box, Scene, SceneObject
from .outside import ask_outside
from .wordings import Wording, word

Random = np.random.Generator

OUTSIDE_ANSWER = "I only know scenes of colored shapes."

_MIN_AREA_RATIO = 1.3  # of the largest object to the second largest, for a question about the largest
_MIN_DISTANCE = 0.1  # between two centers along an axis, in shares of the image, for a question about their order
_POPULAR_NAMES = [f"{color} {shape}" for color in ("red", "blue") for shape in SHAPES[:3]]
_FOREIGN_COLORS = ("black", "white", "brown", "grey")
_FOREIGN_SHAPES = ("heart", "hexagon", "rectangle", "arrow", "diamond")
_FOREIGN_PROBABILITY = 0.1  # that a name of nothing in the scene has one of these
_LOOKUPS = ("color", "shape", "size", "reading", "referring")  # kinds that ask about one object


@dataclass(frozen=True)
class Question:
    """Question about a scene with its answer.

    Attributes:
        kind: key of `FAMILIES`, such as `"count"`.
        text: the question.
        answer: the correct answer. Where a box is asked for, it is the name of the object, which `box` follows.
        box: xyxy in [0, 1]. It belongs to the question for `"description"`, otherwise to the answer.
        variant: subtype within the family, such as the kind of negative or the counted attribute.
        thing: object that the question is about, or `None`.
        before: questions that precede it in the dialogue, which it refers to.
    """

    kind: str
    text: str
    answer: str
    box: Box | None = None
    variant: str = ""
    thing: SceneObject | None = field(default=None, compare=False, repr=False)
    before: tuple[Question, ...] = ()

    @property
    def wants_box(self) -> bool:
        """Whether the answer is a box."""
        return self.box is not None and self.kind != "description"

    def messages(self) -> list[dict[str, Any]]:
        """Return the user's and the assistant's messages without the image, those of the questions before it first.

        A box is a content block of its own.
        """
        asked: list[dict[str, Any]] = [{"type": "text", "text": self.text}]
        answered: list[dict[str, Any]] = [{"type": "text", "text": self.answer}]
        if self.wants_box:
            answered = [{"type": "box", "box": list(self.box or ()), "label": self.answer}]
        elif self.box is not None:
            asked = [{"type": "text", "text": f"{self.text} "}, {"type": "box", "box": list(self.box)}]
        before = [message for question in self.before for message in question.messages()]
        return [*before, {"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def ask(scene: Scene, kind: str, random: Random, wording: Wording = "varied") -> Question | None:
    """Return a question of a family about a scene, or `None` if the scene allows none."""
    return FAMILIES[kind](scene, random, wording)


def ask_many(
    scene: Scene,
    count: int,
    random: Random,
    weights: Mapping[str, float] | None = None,
    *,
    held_out: bool = True,
    wording: Wording = "varied",
) -> list[Question]:
    """Return different questions about a scene, from randomly chosen families.

    Args:
        scene: scene to ask about.
        count: maximum number of questions.
        random: random number generator.
        weights: relative frequencies of families, 1 without an entry. By default all are equally frequent.
        held_out: whether questions may name a combination of color and shape that no training scene shows.
        wording: kind of wording of the questions, see `word`.
    """
    questions: dict[Any, Question] = {}
    p = None if weights is None else np.array([weights.get(kind, 1.0) for kind in FAMILIES])
    for kind in random.choice(list(FAMILIES), 3 * count, p=None if p is None else p / p.sum()):
        if len(questions) == count:
            break
        question = ask(scene, str(kind), random, wording)
        if question is not None and (held_out or "held out" not in map(novelty, (question, *question.before))):
            questions.setdefault((question.text, question.kind == "description" and question.box), question)
    return list(questions.values())


def combination(question: Question) -> tuple[str, str] | None:
    """Return the color and the shape that question and answer name, or `None` if they do not name one of each."""
    known = meanings()
    words = {known.get(one, "") for one in re.findall(r"[a-z]+", f"{question.text} {question.answer}".lower())}
    colors, shapes = words.intersection(COLORS), words.intersection(SHAPES)
    return (colors.pop(), shapes.pop()) if len(colors) == len(shapes) == 1 else None


def novelty(question: Question) -> str | None:
    """Return whether training scenes show the combination of color and shape that question and answer name.

    Returns:
        `"held out"` or `"shown"`, or `None` if they do not name exactly one color and one shape.
    """
    named = combination(question)
    return named and ("held out" if named in HELD_OUT else "shown")


def _pick(random: Random, options: Any) -> Any:
    options = list(options)
    return options[int(random.integers(len(options)))] if options else None


# ---------------------------------------------------------------- naming one object, or none

Naming = Callable[[SceneObject], str]

_BY_SHAPE: tuple[Naming, ...] = (lambda one: one.shape, lambda one: f"{one.size} {one.shape}")
_BY_COLOR: tuple[Naming, ...] = (lambda one: f"{one.color} {ANY}", lambda one: f"{one.size} {one.color} {ANY}")
_BY_NAME: tuple[Naming, ...] = (name, lambda one: f"{one.size} {name(one)}")
_NAMINGS: dict[str, tuple[tuple[Naming, ...], ...]] = {  # the first is the usual one
    "color": (_BY_SHAPE,),
    "shape": (_BY_COLOR,),
    "size": ((name,), _BY_SHAPE[:1], _BY_COLOR[:1]),
    "reading": ((name,), _BY_SHAPE, _BY_COLOR),
    "referring": (_BY_NAME, _BY_SHAPE, _BY_COLOR),
}
_USUAL_PROBABILITY = 0.7


def _choose_namings(kind: str, random: Random, wording: Wording) -> tuple[Naming, ...]:
    usual, *others = _NAMINGS[kind]
    return usual if wording == "plain" or not others or random.random() < _USUAL_PROBABILITY else _pick(random, others)


def _unique(scene: Scene, *namings: Naming) -> Iterator[tuple[SceneObject, str]]:
    """Yield each object that a naming identifies, with the first such name."""
    counts = [Counter(map(naming, scene.objects)) for naming in namings]
    for thing in scene.objects:
        for naming, count in zip(namings, counts, strict=True):
            if count[naming(thing)] == 1:
                yield thing, naming(thing)
                break


def _absent(scene: Scene, random: Random, wording: Wording) -> tuple[str | None, str]:
    """Return the name of something that is not in the scene, if one is found, and how it was chosen."""
    present = {name(thing) for thing in scene.objects}
    if wording == "varied" and random.random() < _FOREIGN_PROBABILITY:
        colors, shapes = (COLORS, _FOREIGN_SHAPES) if random.random() < 0.5 else (_FOREIGN_COLORS, SHAPES)
        return f"{_pick(random, colors)} {_pick(random, shapes)}", "foreign"
    variant = _pick(random, ("random", "popular", "adversarial"))
    every = [f"{color} {shape}" for color, shape in itertools.product(COLORS, SHAPES)]
    mixed = {f"{one.color} {other.shape}" for one, other in itertools.permutations(scene.objects, 2)}
    pool = {"random": every, "popular": _POPULAR_NAMES, "adversarial": sorted(mixed)}[variant]
    return _pick(random, [words for words in pool if words not in present]), variant


def _word(kind: str, wording: Wording, random: Random, named: str, **slots: str) -> str:
    """Word a question about something that is named, sometimes with a synonym."""
    phrase, several = named, named
    if wording == "varied":
        phrase, several = paraphrase(named, random), paraphrase(named, random, behind=False)
    return word(kind, wording, random, name=phrase, a=with_article(phrase), many=plural(several), **slots)


# ---------------------------------------------------------------- families


def _caption(scene: Scene, random: Random, wording: Wording) -> Question:
    return Question("caption", word("caption", wording, random), caption(scene, random))


def caption(scene: Scene, random: Random) -> str:
    """Return a caption in one of several styles. It names all objects, or counts them and describes two."""
    things = [scene.objects[index] for index in random.permutation(len(scene.objects))]
    if not things:
        return "An empty picture."
    if len(things) > 1 and random.random() < 0.3:
        count = f"{len(things)} objects"
        some = " and ".join(describe(thing) for thing in things[:2])
        return _pick(random, (f"{count}, among them {some}.", f"A picture of {count} with {some}."))
    groups = Counter(map(name, things))
    parts = [with_article(words) if count == 1 else f"{count} {plural(words)}" for words, count in groups.items()]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return _pick(random, (f"{listed}.", f"There is {listed}.", f"A picture of {listed}.", f"It shows {listed}."))


def _existence(scene: Scene, random: Random, wording: Wording) -> Question | None:
    if (true := random.random() < 0.5) and scene.objects:
        asked, variant = _pick(random, sorted({name(thing) for thing in scene.objects})), "random"
    else:
        true = False
        asked, variant = _absent(scene, random, wording)
    if asked is None:
        return None
    return Question("existence", _word("existence", wording, random, asked), "yes" if true else "no", variant=variant)


def _count(scene: Scene, random: Random, wording: Wording) -> Question:
    """Return a question whose possible answers are equally likely; otherwise most answers would be 1 or 0."""
    variant = _pick(random, ("shape", "color", "all") if wording == "plain" else ("shape", "color", "all", "name"))
    if variant == "all":
        return Question("count", _word("count", wording, random, ANY), str(len(scene.objects)), variant=variant)
    names: dict[str, tuple[Sequence[str], Naming]] = {
        "shape": (SHAPES, lambda one: one.shape),
        "color": ([f"{color} {ANY}" for color in COLORS], lambda one: f"{one.color} {ANY}"),
        "name": ([f"{color} {shape}" for color, shape in itertools.product(COLORS, SHAPES)], name),
    }
    every, naming = names[variant]
    own = Counter(map(naming, scene.objects))
    answer = _pick(random, sorted({own[words] for words in every}))
    asked = _pick(random, [words for words in every if own[words] == answer])
    return Question("count", _word("count", wording, random, asked), str(answer), variant=variant)


def _lookup(kind: str) -> Callable[[Scene, Random, Wording], Question | None]:
    """Return the family of questions about an attribute of one object."""

    def family(scene: Scene, random: Random, wording: Wording) -> Question | None:
        things = _unique(scene, *_choose_namings(kind, random, wording))
        chosen = _pick(random, [(thing, named) for thing, named in things if _answers(kind, thing)])
        return chosen and _ask_about(kind, chosen[0], chosen[1], random, wording)

    return family


def _answers(kind: str, thing: SceneObject) -> str | None:
    """Return the answer to a question of a kind about an object, or `None` if it has none."""
    answers = {"color": thing.color, "shape": thing.shape, "size": thing.size, "reading": thing.character}
    return answers[kind] if kind in answers else name(thing)


def _ask_about(kind: str, thing: SceneObject, named: str, random: Random, wording: Wording) -> Question:
    answer = named if kind == "referring" else str(_answers(kind, thing))
    box = thing.box if kind == "referring" else None
    return Question(kind, _word(kind, wording, random, named), answer, box, thing=thing)


def _relation(scene: Scene, random: Random, wording: Wording) -> Question | None:
    by_area = sorted(scene.objects, key=lambda one: one.area, reverse=True)
    if len(by_area) < 2:
        return None
    if random.random() < 0.25:
        if by_area[0].area < _MIN_AREA_RATIO * by_area[1].area:
            return None
        return Question("relation", word("largest", wording, random), name(by_area[0]), variant="largest")
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
    text = _word("relation", wording, random, first[1], other=second[1], way=way)
    return Question("relation", text, "yes" if true else "no", variant="place")


def _description(scene: Scene, random: Random, wording: Wording) -> Question | None:
    thing = _pick(random, scene.objects)
    return thing and Question("description", word("description", wording, random), describe(thing), thing.box)


def _premise(scene: Scene, random: Random, wording: Wording) -> Question | None:
    """Return a question about an object that is not there, or not the only one, or has no character on it."""
    kind, variant = _pick(random, _LOOKUPS), _pick(random, ("absent", "absent", "several", "blank"))
    if variant == "blank":
        blank = [(thing, named) for thing, named in _unique(scene, name) if thing.character is None]
        if not blank:
            return None
        named = _pick(random, blank)[1]
        text = _word("reading", wording, random, named)
        return Question("premise", text, f"There is no character on the {named}.", variant=variant)
    naming = _choose_namings(kind, random, wording)[0]
    own = Counter(map(naming, scene.objects))
    if variant == "several":
        named = _pick(random, sorted(words for words, count in own.items() if count > 1))
        answer = f"There are {own[named]} {plural(named)}." if named else ""
    else:
        color, _, shape = (_absent(scene, random, wording)[0] or " ").partition(" ")
        named = {"color": shape, "shape": f"{color} {ANY}"}.get(kind, f"{color} {shape}")
        named = None if named in own or not color else named
        answer = f"There is no {named}."
    if not named:
        return None
    return Question("premise", _word(kind, wording, random, named), answer, variant=variant)


def _outside(scene: Scene, random: Random, wording: Wording) -> Question:
    return Question("outside", ask_outside(random, wording), OUTSIDE_ANSWER)


def _follow_up(scene: Scene, random: Random, wording: Wording) -> Question | None:
    """Return a question that is understood only after another: about `it`, or the same about another object."""
    first = ask(scene, _pick(random, _LOOKUPS), random, wording)
    if first is None or first.thing is None:
        return None
    if random.random() < 0.5:
        known = {"color": first.kind == "color", "shape": first.kind == "shape"}
        kind = _pick(random, [kind for kind in _LOOKUPS if kind != first.kind and not known.get(kind)])
        if not (answer := _answers(kind, first.thing)):
            answer = f"There is no character on the {name(first.thing)}."
        box = first.thing.box if kind == "referring" else None
        return Question("follow_up", word(f"it_{kind}", wording, random), answer, box, "it", first.thing, (first,))
    others = [(thing, named) for thing, named in _unique(scene, name) if thing is not first.thing]
    chosen = _pick(random, [(thing, named) for thing, named in others if _answers(first.kind, thing)])
    if chosen is None or first.kind in ("color", "shape"):
        return None
    thing, named = chosen
    same_shape = sum(other.color == thing.color and other.shape == first.thing.shape for other in scene.objects) == 1
    if thing.shape == first.thing.shape and same_shape:
        named = f"{thing.color} one"
    answer = name(thing) if first.kind == "referring" else str(_answers(first.kind, thing))
    box = thing.box if first.kind == "referring" else None
    text = word("another", wording, random, name=named)
    return Question("follow_up", text, answer, box, "another", thing, (first,))


FAMILIES: dict[str, Callable[[Scene, Random, Wording], Question | None]] = {
    "caption": _caption,
    "existence": _existence,
    "count": _count,
    "color": _lookup("color"),
    "shape": _lookup("shape"),
    "size": _lookup("size"),
    "relation": _relation,
    "reading": _lookup("reading"),
    "referring": _lookup("referring"),
    "description": _description,
    "premise": _premise,
    "outside": _outside,
    "follow_up": _follow_up,
}
