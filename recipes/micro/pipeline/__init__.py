"""The steps from scratch to an evaluated model, one after the other or in parallel."""
