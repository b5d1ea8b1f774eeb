"""What does the first stage for search that ships with the package find? Percent, with 95 % intervals, as tables.

Recall at 1, 5 and 10 among pairs of test scenes and captions, and how often a right caption is preferred to one that
differs in one color, shape or relation. Scenes are test scenes from number 20,000 on, which nothing was chosen by.

python benchmarks/micro_retrieval.py
python benchmarks/micro_retrieval.py --model assets/lyrics_micro_pretraining  # before it was tuned to be searched
python benchmarks/micro_retrieval.py --model runs/micro/full-0/stage1/model --refiner runs/micro/refiner --pairs 100
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lyrics.assets import MICRO_CHECKPOINT, MICRO_SEARCH
from lyrics.evaluation.metrics.retrieval import RERANKED
from lyrics.recipes.micro.report.retrieval import FIRST_SCENE, format_retrieval, measure_retrieval
from lyrics.retrieval import load_encoder


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MICRO_SEARCH, help="a first stage with its processor")
    parser.add_argument("--refiner", type=Path, default=MICRO_CHECKPOINT, help="a model with the refiner")
    parser.add_argument("--pairs", type=int, default=500, help="how many scenes with captions (default: 500)")
    parser.add_argument("--negatives", type=int, default=200, help="how many for each attribute (default: 200)")
    parser.add_argument("--rerank", type=int, default=RERANKED, help=f"pairs to score (default: {RERANKED})")
    parser.add_argument("--first", type=int, default=FIRST_SCENE, help=f"the first scene (default: {FIRST_SCENE})")
    parser.add_argument("--out", type=Path, help="file for the numbers as JSON")
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model, refiner=arguments.refiner)
    measured = measure_retrieval(encoder, arguments.pairs, arguments.negatives, arguments.rerank, first=arguments.first)
    if arguments.out:
        arguments.out.write_text(json.dumps(measured, indent=2) + "\n")
    print(format_retrieval(measured), end="")


if __name__ == "__main__":
    main()
