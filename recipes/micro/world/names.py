"""Names: the words by which questions and answers mean objects, with synonyms and plurals."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np

from .objects import COLORS, SHAPES, SIZES, SceneObject

Random = np.random.Generator
Words = tuple[str, ...]

ANY = "object"  # the word for an object of any shape

# Other words for a word. A name has one of these at most.
_SYNONYMS: dict[str, Words] = {
    "circle": ("disc", "dot"),
    "cross": ("plus",),
    "ring": ("donut", "hoop"),
    ANY: ("thing", "shape", "one"),
    "purple": ("violet",),
    "cyan": ("turquoise",),
    "small": ("little", "tiny"),
    "medium": ("medium-sized",),
    "large": ("big", "huge"),
}
_SYNONYM_PROBABILITY = 0.2
_BEHIND_PROBABILITY = 0.04  # of `star that is red` and `star in red`
_PARTS = {"size": SIZES, "color": COLORS, "shape": (*SHAPES, ANY)}  # of a name, in their order


def name(thing: SceneObject) -> str:
    """Return the name of an object, such as `red circle`."""
    return f"{thing.color} {thing.shape}"


def with_article(words: str) -> str:
    """Prepend `a` or `an`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(words: str) -> str:
    """Return the plural of words that end with a word for a shape."""
    return f"{words}es" if words.endswith("s") else f"{words}s"


def describe(thing: SceneObject) -> str:
    """Return a description such as `a small red circle`, with the object's character if it has one."""
    words = with_article(f"{thing.size} {name(thing)}")
    return words if thing.character is None else f"{words} with the character {thing.character}"


def paraphrase(words: str, random: Random, behind: bool = True) -> str:
    """Return a name, sometimes with a synonym for one of its words, or with its color behind if that is allowed."""
    parts = words.split()
    if behind and len(parts) == 2 and parts[0] in COLORS and random.random() < _BEHIND_PROBABILITY:
        return f"{parts[1]} that is {parts[0]}" if random.random() < 0.5 else f"{parts[1]} in {parts[0]}"
    places = [place for place, word in enumerate(parts) if word in _SYNONYMS]
    if places and random.random() < _SYNONYM_PROBABILITY:
        place = places[int(random.integers(len(places)))]
        parts[place] = str(random.choice(_SYNONYMS[parts[place]]))
    return " ".join(parts)


@cache
def all_names() -> Mapping[str, Words]:
    """Return every name in singular and plural with the words that it means, such as `big star` with large and star."""
    names: dict[str, Words] = {}
    for size, color, shape in itertools.product(*([None, *words] for words in _PARTS.values())):
        means = tuple(word for word in (size, color, shape) if word)
        if shape is None or len(means) + (shape != ANY) < 2:
            continue
        for varied in _variants(means):
            names[" ".join(varied)] = means
            if size is None or color is None:
                names[plural(" ".join(varied))] = means
    return {words: means for words, means in names.items() if " " in words or words not in SHAPES}


@cache
def meanings() -> Mapping[str, str]:
    """Return every word of names, in singular and plural, mapped to the word that it means, such as `hoops` to ring."""
    words = {word: word for words in _PARTS.values() for word in words}
    words |= {other: word for word, others in _SYNONYMS.items() for other in others}
    return words | {plural(one): word for one, word in words.items()}


def _variants(means: Words) -> Iterable[Words]:
    """Yield the words themselves, and each with one synonym."""
    yield means
    for place, word in enumerate(means):
        for other in _SYNONYMS.get(word, ()):
            yield (*means[:place], other, *means[place + 1 :])
