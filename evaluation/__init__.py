"""Evaluation on the benchmarks of the field: its metrics, its tasks, and adapters for its harnesses."""
