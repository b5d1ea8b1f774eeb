"""Helpers that several folders use: atomic files, folder locks and optional imports."""
