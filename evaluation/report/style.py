"""Style of a report, for light and dark screens, and the frame of its page."""

from __future__ import annotations

import html

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fcfcfb; --panel: #fff; --text: #1d1d1b; --muted: #6a6a66; --line: #e2e1dc;
  --bar: #3b6fb6; --whisker: #1d1d1b; --wanted: #1b8a3c; --answered: #d9630a; --good: #1b8a3c; --bad: #c0392b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #161615; --panel: #1f1f1d; --text: #ecebe6; --muted: #a2a19b; --line: #383733;
    --bar: #6d9fe0; --whisker: #ecebe6; --wanted: #4fd07a; --answered: #ff9a4d; --good: #4fd07a; --bad: #ff7d6e;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1080px; padding: 32px 24px 64px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 48px 0 8px; padding-top: 16px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 24px 0 6px; }
a { color: inherit; }
.muted { color: var(--muted); fill: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; font-size: 13px; color: var(--muted); }
td.number, th.number { text-align: right; white-space: nowrap; }
table.narrow { max-width: 560px; }
.chart { width: 100%; max-width: 680px; height: auto; display: block; }
.chart text { font-size: 12.5px; fill: var(--text); }
.chart .muted { fill: var(--muted); }
.chart .bar { fill: var(--bar); }
.chart .whisker { stroke: var(--whisker); stroke-width: 1.2; fill: none; }
.chart .axis { stroke: var(--line); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 16px; align-items: start; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.card dl { margin: 10px 12px; }
.card dt { font-size: 12px; color: var(--muted); }
.card dd { margin: 0 0 6px; overflow-wrap: anywhere; }
.card p { margin: 0 12px 10px; font-size: 12px; overflow-wrap: anywhere; }
.picture { background: var(--page); }
.picture div { position: relative; line-height: 0; margin: 0 auto; }
.picture img { width: 100%; height: auto; }
.picture svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.picture rect { fill: none; stroke-width: 2.5; vector-effect: non-scaling-stroke; }
.picture .wanted { stroke: var(--wanted); stroke-dasharray: 6 3; }
.picture .answered { stroke: var(--answered); }
.good { color: var(--good); } .bad { color: var(--bad); }
details { margin: 8px 0; } summary { cursor: pointer; }
code { font-family: ui-monospace, monospace; font-size: 13px; overflow-wrap: anywhere; white-space: pre-wrap; }
ul { padding-left: 20px; }
"""
# Nothing is loaded from anywhere: a report says what a model saw, to whoever opens it, and to nobody else.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def frame(title: str, body: str) -> str:
    """Return a page that needs nothing but itself."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table(columns: list[str], rows: list[list[str]], numbers: int = 1, is_narrow: bool = False) -> str:
    """Return a table of cells that are HTML; the columns from `numbers` on are numbers."""
    kinds = ["" if place < numbers else ' class="number"' for place in range(len(columns))]
    head = "".join(f"<th{kind}>{html.escape(name)}</th>" for name, kind in zip(columns, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>\n"
        for row in rows
    )
    width = ' class="narrow"' if is_narrow else ""
    return f'<div class="scroll"><table{width}><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'
