"""Answers to samples: images are loaded and refined in batches, and asked about through `Lyrics.ask_many`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..processing_lyrics import VisualObjects
from ..serving import Answer, Lyrics
from .kept_objects import KeptObjects
from .samples import Response, Sample
from .tasks import TaskData


def answer_samples(
    assistant: Lyrics,
    data: TaskData,
    numbers: Sequence[int],
    objects: KeptObjects,
    decoding: Mapping[str, Any],
    batch_size: int,
) -> Iterator[tuple[int, Response]]:
    """Answer samples of a unit.

    Args:
        assistant: model with its processor.
        data: samples of the unit.
        numbers: sequence of the numbers of samples, in the order in which they are asked.
        objects: objects of images that are known.
        decoding: mapping of fields of `GenerationOptions`.
        batch_size: number of samples that are asked together.

    Yields:
        Number and answer of each sample, in the order of `numbers`. Where an image cannot be read, or the model has no
        room for a prompt, the answer is an error.
    """
    batches = (numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size))
    rows = chain.from_iterable(_rows([data.samples[number] for number in batch], data, objects) for batch in batches)
    answers = assistant.ask_many(rows, batch_size=batch_size, on_error="yield", **decoding)
    for number, answer in zip(numbers, answers, strict=True):
        yield number, _response(answer)


def _rows(samples: Sequence[Sample], data: TaskData, objects: KeptObjects) -> Iterator[dict[str, Any] | Exception]:
    """Yield the rows of one batch, for `ask_many`; the images of all of them are refined together."""
    loaded = [_load(sample, data, objects) for sample in samples]
    pictures = [picture for one in loaded if not isinstance(one, Exception) for picture in one]
    seen = iter(objects.see(pictures))
    for sample, own in zip(samples, loaded, strict=True):
        if isinstance(own, Exception):
            yield own
            continue
        content = [*({"type": "image"} for _ in own), {"type": "text", "text": sample.prompt}]
        yield {
            "images": own,
            "messages": [{"role": "user", "content": content}],
            "objects": [next(seen) for _ in own],
        }


def _load(sample: Sample, data: TaskData, objects: KeptObjects) -> list[Any] | Exception:
    try:
        return objects.processor.load_pictures([Path(data.guard.check_path(path)) for path in sample.images])
    except (ValueError, OSError) as error:
        return error


def _response(answer: Answer | Exception) -> Response:
    """Return an answer as it is kept.

    Raises:
        Exception: an error that says nothing about the sample, such as too little memory.
    """
    if isinstance(answer, Answer):
        return Response(answer.text, str(answer.finish_reason), _describe(answer.all_objects))
    if isinstance(answer, ValueError | OSError):
        return Response(error=str(answer) or type(answer).__name__)
    raise answer


def _describe(seen: Sequence[VisualObjects | None]) -> dict[str, float]:
    """Return how many objects the refiner saw in all images, and the median share of the image that one covers."""
    found = [one for one in seen if one is not None]
    if not found:
        return {}
    boxes = np.concatenate([one.boxes for one in found])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return {"count": len(boxes), "area": round(float(np.median(areas)), 5) if len(boxes) else 0.0}
