"""Scenes of the micro world, questions about them, and the data sets and evaluation cases made of both."""
