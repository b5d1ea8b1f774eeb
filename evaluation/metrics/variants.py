"""Check of the name of a variant, with which a misspelt one would follow another code in silence."""

from __future__ import annotations

from collections.abc import Collection


def check_variant(variant: str, known: Collection[str]) -> None:
    """Raise a `ValueError` that names the known variants, where `variant` is none of them."""
    if variant not in known:
        raise ValueError(f"There is no variant {variant!r} of this metric: known are {', '.join(sorted(known))}.")
