"""What of Transformers' suites passed and what was skipped: `python report.py results.xml [--write]`.

`SKIPPED.md` beside this file lists every skipped test with its reason. A run that skips anything else fails here;
`--write` writes the list anew, to be read before it is committed.
"""

import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree

LIST = Path(__file__).with_name("SKIPPED.md")
HEADER = """# Tests of Transformers' suites that are skipped here

Checked by `make test-slow`. Numbers in brackets count models and parameters.

| reason | tests |
|---|---|
"""


def reason_of(skipped: ElementTree.Element) -> str:
    """Why a test was skipped, without the names of our classes, so that equal reasons are one."""
    message = re.sub(r"<class '[\w.]*'>", "the class", skipped.get("message", ""))
    message = re.sub(r"^(Lyrics|Ram|Refiner)\w+", "The model", message)
    return message.replace("|", "/").strip()


def read(results: Path) -> tuple[Counter[str], dict[str, Counter[str]]]:
    """Passed tests of each class; for each reason the skipped tests, with how often."""
    passed: Counter[str] = Counter()
    skipped: dict[str, Counter[str]] = defaultdict(Counter)
    for case in ElementTree.parse(results).iter("testcase"):
        group = case.get("classname", "")
        if "tests.suites." not in group:
            continue
        reasons = [reason_of(element) for element in case.findall("skipped")]
        if reasons:
            skipped[reasons[0]][re.sub(r"_\d+(_.*)?$", "", case.get("name", ""))] += 1
        elif case.find("failure") is None and case.find("error") is None:
            passed[group.rpartition(".")[2]] += 1
    return passed, skipped


def write_list(skipped: dict[str, Counter[str]]) -> None:
    lines = []
    for reason, tests in sorted(skipped.items()):
        names = [f"{name} ({count})" if count > 1 else name for name, count in sorted(tests.items())]
        lines.append(f"| {reason} | {', '.join(names)} |\n")
    LIST.write_text(HEADER + "".join(lines))


def read_list() -> dict[str, set[str]]:
    rows = [line.strip("| \n").rpartition(" | ") for line in LIST.read_text().splitlines() if line.startswith("| ")]
    return {reason: set(re.findall(r"test_\w+", tests)) for reason, _, tests in rows}


def main(results: str, *options: str) -> int:
    passed, skipped = read(Path(results))
    for name, count in sorted(passed.items()):
        print(f"{name}: {count} passed")
    print(f"Transformers' suites: {passed.total()} passed, {sum(map(Counter.total, skipped.values()))} skipped")
    if "--write" in options:
        write_list(skipped)
    known = read_list()
    new = {reason: sorted(set(tests) - known.get(reason, set())) for reason, tests in skipped.items()}
    for reason, tests in new.items():
        if tests:
            print(f"Skipped, and not on the list of {LIST.name}: {', '.join(tests)}: {reason}")
    return int(any(new.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
