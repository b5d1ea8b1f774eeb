"""Training rows: their order, their length, and how they are varied."""
