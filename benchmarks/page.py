"""Put the rows that the benchmarks have written into docs/performance.md.

Between the marks `<!-- rows: NAME -->` and `<!-- end -->` of the page comes what `docs/results/performance/NAME.json`
holds: title, machine, versions, and the table.

    python benchmarks/page.py            # after any benchmark with --json docs/results/performance/NAME.json
    python benchmarks/page.py --check    # whether the page holds these rows; ends with 1 if it does not
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from measuring import Row, format_rows

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "docs" / "results" / "performance"
BLOCK = re.compile(r"<!-- rows: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def fill(page: str, results: Path) -> str:
    """Return the page with the rows of all results.

    Args:
        page: Markdown with marks.
        results: folder of the JSON files.

    Raises:
        ValueError: a mark names no file, or a file has no mark.
    """
    marks, files = set(BLOCK.findall(page)), {path.stem for path in results.glob("*.json")}
    if marks != files:
        raise ValueError(f"The page has the marks {sorted(marks)}, and {results} the files {sorted(files)}.")
    return BLOCK.sub(lambda match: _block(match[1], results / f"{match[1]}.json"), page)


def _block(name: str, file: Path) -> str:
    content = json.loads(file.read_text(encoding="utf-8"))
    versions = ", ".join(f"{package} {version}" for package, version in content["versions"].items())
    told = f"{content['title']}. {content['machine']}; Python {content['python']}, {versions}."
    table = format_rows([Row(**row) for row in content["rows"]])
    return f"<!-- rows: {name} -->\n{told}\n\n{table}\n<!-- end -->"


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    filled = fill(page, RESULTS)
    if arguments.check:
        sys.exit(f"{PAGE} does not hold the rows of {RESULTS}." if filled != page else 0)
    PAGE.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
