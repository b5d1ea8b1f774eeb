"""Optimizer, training loop and initialization that several steps share."""
