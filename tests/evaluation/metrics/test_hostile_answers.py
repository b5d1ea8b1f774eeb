"""Hostile answers: the checks of `benchmarks/fuzz.py --kind metrics`, on a few of its inputs."""

import importlib.util
import random
from pathlib import Path

FILE = Path(__file__).parents[3] / "benchmarks" / "fuzz_metrics.py"


def test_no_answer_is_an_error():
    spec = importlib.util.spec_from_file_location("fuzz_metrics", FILE)
    fuzz_metrics = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz_metrics)
    for number in range(1000):
        fuzz_metrics.check_metrics(random.Random(number))
