"""Readers of data sets usual for captions, questions, referring and dialogue, as they are distributed."""
