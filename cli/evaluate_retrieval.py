"""`lyrics evaluate retrieval`: recall of a first stage on Flickr30k and COCO."""

from __future__ import annotations

import argparse
import json

from .common import on_one_line, quiet_loading

DESCRIPTION = """retrieval: images and captions, of a first stage
  splits: flickr30k, coco
  metric: recall at 1, 5 and 10 in both directions, by similarity and re-ranked
  data:   Karpathy's test splits in DATA/flickr30k and DATA/coco; retrieval/NAME for one, retrieval/NAME:FOLDER"""


def is_retrieval(word: str) -> bool:
    """Return whether a task is that of a first stage."""
    return word.partition(":")[0].partition("/")[0] == "retrieval"


def run(arguments: argparse.Namespace) -> int:
    """Measure recall, and print it.

    Raises:
        ValueError: there are other tasks, which the whole model answers, or options that have no effect.
    """
    from lyrics.retrieval import evaluate_tasks, load_encoder, parse_retrieval_words
    from lyrics.retrieval.tasks import RESULTS, format_results

    if others := [word for word in arguments.tasks if not is_retrieval(word)]:
        raise ValueError(f"retrieval measures a first stage, and {others[0]} a whole model: evaluate them separately.")
    given = [name for name in ("answers_only", "judge", "card", "prompt", "metric") if getattr(arguments, name)]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} has no effect on retrieval.")
    tasks = parse_retrieval_words(arguments.tasks, arguments.data)
    quiet_loading()
    encoder = load_encoder(
        arguments.model,
        refiner=arguments.refiner,
        store=arguments.store,
        device=arguments.device,
        dtype=arguments.dtype,
        tag_thresholds=arguments.tag_thresholds,
        batch_size=arguments.batch_size,
    )
    content = evaluate_tasks(encoder, tasks, arguments.out, limit=arguments.limit, image_root=arguments.image_root)
    if arguments.json:
        print(json.dumps(content["results"], indent=2))
    else:
        print(format_results(content))
        print(on_one_line(f"Results: {arguments.out / RESULTS}"))
    return 0
