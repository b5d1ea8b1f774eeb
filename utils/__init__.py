"""Helpers that several folders use: atomic files, folder locks, optional imports."""
