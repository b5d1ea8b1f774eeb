"""What the first stage of the micro model finds: recall among test scenes, and captions with one wrong attribute."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ....evaluation.metrics.bootstrap import bootstrap_interval
from ....evaluation.metrics.retrieval import RERANKED
from ....processing_lyrics import VisualObjects
from ....retrieval import PairEncoder, evaluate_retrieval
from ..world.names import name, with_article
from ..world.objects import COLORS, SHAPES, Scene, SceneObject
from ..world.questions import caption
from ..world.scenes import draw_test_scene

FIRST_SCENE = 20_000  # earlier test scenes were looked at
MIN_DISTANCE = 0.15  # between two centers along an axis, in shares of the image, for a relation
DIRECTIONS = (("left of", "right of", 0), ("above", "below", 1))
ATTRIBUTES = ("color", "shape", "relation")

Captions = tuple[str, str]  # a right and a wrong one


def measure_retrieval(
    encoder: PairEncoder, pairs: int = 500, negatives: int = 200, reranked: int = RERANKED, first: int = FIRST_SCENE
) -> dict[str, Any]:
    """Return recall among pairs of scenes and captions, and how often a caption with one wrong attribute loses.

    Args:
        encoder: first stage of the micro model.
        pairs: number of scenes, each with one caption of the kind that training shows.
        negatives: number of pairs of captions for each attribute.
        reranked: number of candidates that are scored as pairs.
        first: number of the first test scene.

    Returns:
        Dictionary of `pairs`, `negatives`, `recall` (`contrast` and `reranked`, as `evaluate_retrieval` returns them;
        `with_objects`, where each text also names the objects of its image, as in training) and `preferred`, by
        attribute the percentage of right captions with the higher similarity (`contrast`) and score (`match`).
        Percentages are lists of value, low and high end of their 95 % interval.
    """
    rows = SceneRows(pairs, first)
    found = evaluate_retrieval(encoder, rows, reranked=reranked)
    recall = {
        "contrast": found.contrast,
        "reranked": found.reranked,
        "with_objects": _recall_with_objects(encoder, rows),
    }
    preferred = {attribute: _preferred(encoder, attribute, negatives, first) for attribute in ATTRIBUTES}
    measured = {"first": first, "pairs": pairs, "negatives": negatives, "reranked": reranked}
    return measured | {"recall": _as_lists(recall), "preferred": _as_lists(preferred)}


class SceneRows:
    """Test scenes with one caption each, as rows.

    Args:
        count: number of scenes.
        first: number of the first one.
    """

    def __init__(self, count: int, first: int = FIRST_SCENE) -> None:
        self.count, self.first = count, first

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for number in range(self.first, self.first + self.count):
            scene = draw_test_scene(number)
            yield {"image": scene.image, "caption": caption(scene, np.random.default_rng((number, 5)))}


def _recall_with_objects(encoder: PairEncoder, rows: SceneRows) -> Any:
    """Return recall where texts name the objects of their images, which no query can."""
    with_objects = _WithObjects(encoder)
    return evaluate_retrieval(with_objects, rows, reranked=0).contrast


class _WithObjects(PairEncoder):
    """Encoder whose n-th text has the objects of the n-th image."""

    def __init__(self, encoder: PairEncoder) -> None:
        super().__init__(encoder.model, encoder.processor, encoder.batch_size)
        self._seen: list[VisualObjects] = []

    def find_objects(self, pictures: Sequence[Any]) -> list[VisualObjects]:
        found = super().find_objects(pictures)
        self._seen += found
        return found

    def embed_texts(self, texts: Sequence[str], objects: Sequence[VisualObjects] | None = None) -> Any:
        return super().embed_texts(texts, self._seen)


def _preferred(encoder: PairEncoder, attribute: str, count: int, first: int) -> dict[str, Any]:
    """Return how often the right one of two captions has the higher similarity and the higher score."""
    hits: dict[str, list[float]] = {"contrast": [], "match": []}
    cases = itertools.islice(draw_hard_negatives(attribute, first), count)
    while batch := list(itertools.islice(cases, encoder.batch_size)):
        pictures, captions = [picture for picture, _ in batch], [both for _, both in batch]
        objects = encoder.find_objects(pictures)
        images = encoder.embed_images(pictures, objects)
        texts = encoder.embed_texts([text for both in captions for text in both]).reshape(len(batch), 2, -1)
        similarity = np.einsum("nd,nkd->nk", images, texts)
        hits["contrast"] += (similarity[:, 0] > similarity[:, 1]).tolist()
        for picture, seen, both in zip(pictures, objects, captions, strict=True):
            right, wrong = encoder.match_texts(picture, seen, both)
            hits["match"].append(bool(right > wrong))
    return {
        kind: [100 * value for value in bootstrap_interval([float(hit) for hit in values])]
        for kind, values in hits.items()
    }


def draw_hard_negatives(attribute: str, first: int = FIRST_SCENE) -> Iterator[tuple[Image.Image, Captions]]:
    """Yield test scenes with a right caption and one that differs in one word, without end.

    Args:
        attribute: `"color"` or `"shape"` of one object, or `"relation"` of two.
        first: number of the first scene.
    """
    for number in itertools.count(first):
        scene, random = draw_test_scene(number), np.random.default_rng((number, 6))
        captions = _relation(scene, random) if attribute == "relation" else _changed(scene, attribute, random)
        if captions is not None:
            yield scene.image, captions


def _changed(scene: Scene, attribute: str, random: np.random.Generator) -> Captions | None:
    """Return a caption of all objects, and one in which the color or the shape of one is another."""
    names = list(dict.fromkeys(map(name, scene.objects)))
    if not names:
        return None
    place = int(random.integers(len(names)))
    color, shape = names[place].split()
    others = [f"{one} {shape}" for one in COLORS] if attribute == "color" else [f"{color} {one}" for one in SHAPES]
    wrong = str(random.choice([one for one in others if one not in names]))
    return _listed(names), _listed([*names[:place], wrong, *names[place + 1 :]])


def _listed(names: Sequence[str]) -> str:
    parts = [with_article(one) for one in names]
    before = f"{', '.join(parts[:-1])} and " if len(parts) > 1 else ""
    return f"It shows {before}{parts[-1]}."


def _relation(scene: Scene, random: np.random.Generator) -> Captions | None:
    """Return what lies where, and the opposite, of two objects whose names are unique."""
    unique = [one for one in scene.objects if sum(name(other) == name(one) for other in scene.objects) == 1]
    options: list[Captions] = []
    for one, other in itertools.permutations(unique, 2):
        for before, behind, axis in DIRECTIONS:
            if _center(one)[axis] < _center(other)[axis] - MIN_DISTANCE:
                # said both ways, so that a model that prefers a word finds half
                for first, second, ways in ((one, other, (before, behind)), (other, one, (behind, before))):
                    right, wrong = (f"{with_article(name(first))} {way} {with_article(name(second))}." for way in ways)
                    options.append((right, wrong))
    return options[int(random.integers(len(options)))] if options else None


def _center(thing: SceneObject) -> tuple[float, float]:
    x1, y1, x2, y2 = thing.box
    return (x1 + x2) / 2, (y1 + y2) / 2


def _as_lists(values: Any) -> Any:
    """Return nested results as JSON, rounded to one decimal."""
    if isinstance(values, Mapping):
        return {key: _as_lists(value) for key, value in values.items()}
    return None if values is None else [round(float(one), 1) for one in values]


def format_retrieval(measured: Mapping[str, Any]) -> str:
    """Return measurements of `measure_retrieval` as two tables."""
    recall, columns = measured["recall"], [f"R@{cutoff}" for cutoff in (1, 5, 10)]
    lines = [f"| recall among {measured['pairs']} | " + " | ".join(f"image to text {one}" for one in columns)]
    lines[0] += " | " + " | ".join(f"text to image {one}" for one in columns) + " |"
    lines.append("|---" * 7 + "|")
    labels: dict[str, Callable[[], str]] = {
        "contrast": lambda: "similarity",
        "reranked": lambda: f"the best {measured['reranked']} scored as pairs",
        "with_objects": lambda: "similarity, texts with the objects of their images",
    }
    for kind, label in labels.items():
        if recall[kind] is not None:
            lines.append(f"| {label()} | " + " | ".join(map(_with_interval, recall[kind].values())) + " |")
    chance = [f"{100 * cutoff / measured['pairs']:.1f}" for cutoff in (1, 5, 10)] * 2
    lines += [f"| chance | {' | '.join(chance)} |", ""]
    lines += [
        f"| right of two captions that differ in (of {measured['negatives']}) | similarity | match |",
        "|---|---|---|",
    ]
    for attribute, kinds in measured["preferred"].items():
        lines.append(f"| {attribute} | {_with_interval(kinds['contrast'])} | {_with_interval(kinds['match'])} |")
    return "\n".join([*lines, "| chance | 50.0 | 50.0 |"]) + "\n"


def _with_interval(values: Sequence[float]) -> str:
    value, low, high = values
    return f"{value:.1f} ({low:.1f} to {high:.1f})"
