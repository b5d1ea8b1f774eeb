"""Metrics of the field's benchmarks as pure functions, one file per metric.

A `parse_*` function reads a model's answer and returns `None` when it cannot. A `score_*` function returns the score of
one sample, a float in [0, 1]. A `summarize_*` function turns the results of all samples into percent. Where the field
computes a metric in several ways, the keyword `variant` names one; the default is the official code.
"""
