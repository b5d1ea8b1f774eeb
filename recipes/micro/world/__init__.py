"""Scenes of the micro world, the questions about them, and the rows of text and pictures made of both."""
