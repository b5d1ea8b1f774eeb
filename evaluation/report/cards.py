"""Samples of a report as images with boxes, prompt, answer and reference."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ...datasets_lyrics.path_guard import PathGuard
from ...processing_lyrics.image_loading import load_picture
from ...utils.seeding import stable_hash

SHOWN = 12  # samples of a unit
_SIDE = 360  # pixels of an image's longer side
_HEIGHT = 260  # pixels of the page, of the highest image
_QUALITY = 82
_LONGEST_TEXT = 600  # characters of a text
_REFERENCES = 3  # reference answers of a sample
_MAX_PIXELS = 178_956_970


def choose_worst(lines: Iterable[Mapping[str, Any]], count: int = SHOWN) -> list[Mapping[str, Any]]:
    """Return the samples with the lowest scores, the least overlap first; among equal ones any, always the same."""
    scored = [line for line in lines if line.get("score") is not None and line["score"] < 1]
    return sorted(scored, key=lambda line: (line["score"], line.get("iou", 0.0), stable_hash(line["id"])))[:count]


def draw_cards(lines: Sequence[Mapping[str, Any]], root: Path | None) -> str:
    """Return cards of samples.

    Args:
        lines: sequence of lines of `samples.jsonl`.
        root: folder of the images, or `None` where it is not known: the cards then have none.
    """
    return '<div class="cards">\n' + "\n".join(_card(line, root) for line in lines) + "\n</div>"


def _card(line: Mapping[str, Any], root: Path | None) -> str:
    expected = _expected(line)
    said = line["said"] if "said" in line else {"answer": line.get("answer", "")}
    rows = [("asked", line["prompt"]), *said.items(), *([("expected", expected)] if expected else [])]
    score = f"score {100 * line['score']:.0f}" if line.get("score") is not None else ""
    score += f", IoU {line['iou']:.2f}" if line.get("iou") is not None else ""
    items = "".join(f"<dt>{html.escape(name)}</dt><dd>{_text(value)}</dd>" for name, value in rows)
    return (
        f'<article class="card">{_picture(line, root)}<dl>{items}</dl>'
        f'<p class="muted">{_text(str(line["id"]))}{" · " if score else ""}{score}</p></article>'
    )


def _expected(line: Mapping[str, Any]) -> str:
    if "box" in line:
        return "the green box" if line.get("images") else str(line["box"])
    answers = list(dict.fromkeys(line.get("answers", ())))
    more = f"\nand {len(answers) - _REFERENCES} more" if len(answers) > _REFERENCES else ""
    return "\n".join(answers[:_REFERENCES]) + more


def _text(text: str) -> str:
    short = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
    return html.escape(short).replace("\n", "<br>") or "<em>nothing</em>"


def _picture(line: Mapping[str, Any], root: Path | None) -> str:
    """Return the last image of a sample with boxes: green the one that is asked for, orange those of the answer."""
    images = line.get("images") or []
    encoded = None if root is None or not images else _encode(root, images[-1])
    if encoded is None:
        return ""
    source, aspect = encoded
    boxes = [("answered", one["box"]) for one in line.get("boxes", ())]
    boxes += [("wanted", line["box"])] if "box" in line else []
    rectangles = "".join(
        f'<rect class="{kind}" x="{x1:.4f}" y="{y1:.4f}" width="{x2 - x1:.4f}" height="{y2 - y1:.4f}"/>'
        for kind, (x1, y1, x2, y2) in boxes
    )
    overlay = f'<svg viewBox="0 0 1 1" preserveAspectRatio="none">{rectangles}</svg>' if boxes else ""
    name = html.escape(os.path.basename(images[-1]), quote=True)
    image = f'<img src="{source}" alt="{name}" loading="lazy">'
    return f'<div class="picture"><div style="width:min(100%,{_HEIGHT * aspect:.0f}px)">{image}{overlay}</div></div>'


def _encode(root: Path, path: str) -> tuple[str, float] | None:
    """Return a small version of an image as a `data:` URI, and its aspect ratio; `None` where it cannot be read."""
    try:
        picture = load_picture(Path(PathGuard(root).check_path(str(root / path))), _MAX_PIXELS)
    except (ValueError, OSError):
        return None
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    file = BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return source, picture.width / picture.height
