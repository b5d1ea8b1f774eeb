"""Folders and settings, optimizer, training loop and initialization that several steps share."""
