"""Plots of a report as SVG within the page: bars with their intervals, in the colors of the page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _ROW, _LABEL, _NUMBER, _TOP = 680, 26, 200, 130, 4
_LONGEST_LABEL = 30  # characters


def draw_bars(groups: Sequence[Mapping[str, Any]], title: str, largest: float = 100.0) -> str:
    """Return a plot with one bar for each group.

    Args:
        groups: sequence of mappings of `name`, `samples`, `value` and `interval`; a value may be `None`.
        title: title of the plot, for readers that do not see it.
        largest: value at the end of the scale; longer bars make it larger.
    """
    ends = [end for group in groups for end in (group["value"], group["interval"][1]) if end is not None]
    scale = (_WIDTH - _LABEL - _NUMBER) / max([largest, *ends])
    height = _TOP * 2 + _ROW * len(groups)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(title, quote=True)}">',
        f'<line class="axis" x1="{_LABEL}" y1="0" x2="{_LABEL}" y2="{height}"/>',
    ]
    for number, group in enumerate(groups):
        parts += _bar(group, _TOP + number * _ROW, scale)
    return "\n".join([*parts, "</svg>"])


def _bar(group: Mapping[str, Any], top: float, scale: float) -> list[str]:
    """Return label, bar, interval and number of a group."""
    middle = top + _ROW / 2
    name = str(group["name"])
    short = name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…"
    lines = [
        f'<text x="{_LABEL - 8}" y="{middle + 4:.1f}" text-anchor="end">{html.escape(short)}'
        f"<title>{html.escape(name)}</title></text>"
    ]
    value, (low, high) = group["value"], group["interval"]
    if value is None:
        return [*lines, f'<text class="muted" x="{_LABEL + 8}" y="{middle + 4:.1f}">no score</text>']
    lines.append(
        f'<rect class="bar" x="{_LABEL}" y="{top + 5:.1f}" width="{max(0.0, value) * scale:.1f}" height="{_ROW - 10}"/>'
    )
    end = max(value, high or value)
    if low is not None and high is not None:
        start, stop = _LABEL + low * scale, _LABEL + high * scale
        lines.append(
            f'<path class="whisker" d="M{start:.1f} {middle}H{stop:.1f}M{start:.1f} {middle - 4}v8'
            f'M{stop:.1f} {middle - 4}v8"/>'
        )
    text = f'{value:.1f} <tspan class="muted">n={group["samples"]:,}</tspan>'
    lines.append(f'<text x="{_LABEL + end * scale + 8:.1f}" y="{middle + 4:.1f}">{text}</text>')
    return lines
