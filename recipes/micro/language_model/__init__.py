"""Training of the micro language model on dialogues about objects that are given as symbols."""
