"""Images of a mixture, each once, for refinement: data sets of one mixture often share those of COCO."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...utils.optional_imports import import_optional
from ..path_guard import PathGuard
from .mixture import Mixture

_ROWS = 1000


def mixture_pictures(mixture: Mixture, root: str | os.PathLike) -> tuple[Any, PathGuard]:
    """Return the images that a mixture may show, and the rule for their paths.

    A file that several data sets name, also through links, is there once. Left out are images of data sets with the
    weight 0, beyond a cap, and of evaluation splits.

    Args:
        mixture: the mixture.
        root: folder of its data sets.

    Returns:
        `datasets.Dataset` with the columns `image`, a path, and `key`: the path below the root; or for a file elsewhere
        the name of its data set and the path there. And the guard.
    """
    root = Path(os.path.realpath(root))
    found: dict[str, str] = {}  # key by path
    for part in mixture.parts:
        if not part.share.weight:
            continue
        rows = part.rows.select_columns(["images"]).select(part.order)
        names = dict.fromkeys(path for batch in rows.iter(_ROWS) for paths in batch["images"] for path in paths)
        for name in names:
            path = os.path.realpath(os.path.join(part.guard.root or "", name))
            is_below = Path(path).is_relative_to(root)
            key = os.path.relpath(path, root) if is_below else f"{part.share.name}/{name}"
            found.setdefault(path, key.replace(os.sep, "/"))
    allowed = tuple(dict.fromkeys(folder for part in mixture.parts for folder in part.guard.allowed or ()))
    columns = {"image": list(found), "key": list(found.values())}
    return import_optional("datasets").Dataset.from_dict(columns), PathGuard(root, allowed)
