"""Scoring of answers on one core: questions per minute of each metric, apart from the model.

python benchmarks/metrics.py
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from fuzz_metrics import CHOICES, answer_of

from lyrics.evaluation.metrics.anls import score_anls
from lyrics.evaluation.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from lyrics.evaluation.metrics.captions import score_captions
from lyrics.evaluation.metrics.exact_match import score_exact_match
from lyrics.evaluation.metrics.mme import score_mme
from lyrics.evaluation.metrics.multiple_choice import score_choice
from lyrics.evaluation.metrics.pope import score_pope
from lyrics.evaluation.metrics.referring import box_iou, parse_box
from lyrics.evaluation.metrics.vqa_accuracy import score_vqa

COUNT = 10_000


def main() -> None:
    """Score the same answers with every metric, and print the rates."""
    draw = random.Random(0)  # noqa: S311  (repeatable, and no secret)
    answers = [answer_of(draw) for _ in range(COUNT)]
    references = [draw.choices(answers, k=10) for _ in range(COUNT)]
    metrics: dict[str, Callable[[int], object]] = {
        "VQA accuracy, ten answers": lambda number: score_vqa(answers[number], references[number]),
        "exact match": lambda number: score_exact_match(answers[number], references[number][:1]),
        "ANLS, ten answers": lambda number: score_anls(answers[number], references[number]),
        "POPE": lambda number: score_pope(answers[number], "yes"),
        "MME": lambda number: score_mme(answers[number], "yes"),
        "multiple choice": lambda number: score_choice(answers[number], CHOICES, 0),
        "IoU of the first box": lambda number: box_iou(
            parse_box(answers[number]) or (0, 0, 0, 0), (0.1, 0.2, 0.3, 0.5)
        ),
    }
    for name, score in metrics.items():
        start = time.process_time()
        for number in range(COUNT):
            score(number)
        report(name, COUNT, time.process_time() - start)
    words = ["a", "red", "star", "next", "to", "the", "blue", "ring", "on", "some", "table", "with", "two", "dogs"]
    captions = {str(number): " ".join(draw.choices(words, k=9)) for number in range(1000)}
    truth = {name: [" ".join(draw.choices(words, k=9)) for _ in range(5)] for name in captions}
    start = time.process_time()
    score_captions(captions, truth, tokenize=list, meteor=False)
    report("BLEU, ROUGE-L and CIDEr, five references", len(captions), time.process_time() - start)
    scores = [draw.random() for _ in range(COUNT)]
    start = time.process_time()
    bootstrap_interval(scores)
    paired_bootstrap(scores, scores[::-1])
    report("interval, and paired comparison with 10,000 draws", COUNT, time.process_time() - start)


def report(name: str, count: int, seconds: float) -> None:
    """Print the rate of one metric."""
    print(f"{name:50} {60 * count / seconds:14,.0f} questions per minute")


if __name__ == "__main__":
    main()
