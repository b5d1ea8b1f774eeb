"""The order of the training steps, and how they run."""
