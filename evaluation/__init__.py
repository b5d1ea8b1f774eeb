"""Evaluation on the benchmarks of the field: its metrics, its tasks, and adapters for its harnesses."""

from .evaluate import EvaluationOptions, evaluate, read_results
from .ranks import Ranks

__all__ = ["EvaluationOptions", "Ranks", "evaluate", "read_results"]
