"""Tables of file, question and answer: CSV, TSV, and spreadsheets (.xlsx), all read row by row."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...utils.optional_imports import import_optional
from .folder import Folder, Split
from .formats import Format, Record, Row, text_of

TEXTS, SPREADSHEETS = (".csv", ".tsv"), (".xlsx", ".xlsm")
COLUMNS = {
    "file": ("file", "image", "image_path", "path", "file_name", "filename", "picture"),
    "question": ("question", "query", "prompt", "instruction"),
    "answer": ("answer", "response", "output", "caption", "text"),
}

Line = tuple[int, list[Any]]  # its number, and its cells


def _records(folder: Folder) -> Iterator[Record]:
    """Yield the rows of a table with a header as mappings of `file`, `question` and `answer`."""
    path = folder.file()
    lines = _lines_of(path)
    _, header = next(lines, (0, []))
    chosen = _choose_columns(path, header)
    for number, cells in lines:
        if any(cell not in (None, "") for cell in cells):
            values = {kind: cells[place] if place < len(cells) else None for kind, place in chosen.items()}
            yield f"{path.name}, line {number}", {kind: _text_of_cell(value) for kind, value in values.items()}


def _lines_of(path: Path) -> Iterator[Line]:
    """Yield the lines of a table.

    Raises:
        ValueError: naming the file, when it is no table that can be read.
        ImportError: when a spreadsheet needs a library that is missing.
    """
    ending = path.suffix.lower()
    if ending in TEXTS:
        return _text_lines(path)
    if ending in SPREADSHEETS:
        return _spreadsheet_lines(path)
    raise ValueError(f"{path} is no table that is read here: save it as .csv (UTF-8), .tsv or .xlsx.")


def _text_lines(path: Path) -> Iterator[Line]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            first = file.readline()
            file.seek(0)
            is_tsv = path.suffix.lower() == ".tsv" or "\t" in first
            reader = csv.reader(file, delimiter="\t" if is_tsv else _delimiter(first))
            for cells in reader:
                yield reader.line_num, list(cells)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read: {error}. Save it as CSV in UTF-8.") from error


def _delimiter(line: str) -> str:
    return ";" if line.count(";") > line.count(",") else ","  # of a spreadsheet in many European languages


def _spreadsheet_lines(path: Path) -> Iterator[Line]:
    """Yield the rows of the first sheet; values of formulas are those that were saved last."""
    openpyxl = import_optional("openpyxl")
    broken = (openpyxl.utils.exceptions.InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError)
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except broken as error:
        raise ValueError(f"{path} is no spreadsheet that can be read: {error}") from error
    try:
        if not book.worksheets:
            raise ValueError(f"{path} has no sheet with cells.")
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # what some programs write there is wrong, and rows would be cut
        for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
            yield number, list(cells)
    except (zipfile.BadZipFile, SyntaxError, KeyError, OSError) as error:  # a syntax error of XML
        raise ValueError(f"{path} is damaged: {error}") from error
    finally:
        book.close()


def _choose_columns(path: Path, header: Iterable[Any]) -> dict[str, int]:
    """Return the places of the columns that are known by their names."""
    places: dict[str, int] = {}
    for place, name in enumerate(header):
        if isinstance(name, str) and name.strip():
            places.setdefault(name.strip().lower(), place)
    chosen = {}
    for kind, known in COLUMNS.items():
        if found := next((name for name in known if name in places), None):
            chosen[kind] = places[found]
    if "file" not in chosen or "answer" not in chosen:
        raise ValueError(
            f"{path} needs a column with the image's file ({', '.join(COLUMNS['file'])}) and one with the answer "
            f"({', '.join(COLUMNS['answer'])}); its columns are {', '.join(map(repr, places)) or 'none'}."
        )
    return chosen


def _text_of_cell(value: Any) -> str | None:
    """Return a cell as text: numbers as a spreadsheet shows them, and an empty cell as an empty text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def _rows(folder: Folder, record: Mapping[str, str | None]) -> Iterable[Row]:
    name, answer = text_of(record, "file"), text_of(record, "answer")
    question = text_of(record, "question") if "question" in record else ""
    key = f"{name}/{question}" if question else name
    yield Row(key, [folder.picture(name)], "vqa" if question else "caption", question, [answer])


FORMATS = (
    Format(
        "table",
        "A table of file, question and answer (CSV, TSV, XLSX)",
        "your own",
        "yours",
        "a .csv, .tsv or .xlsx (its first sheet) with a header; without a question the answer is a caption",
        "as the column of files says",
        {"train": Split(("*.csv|*.tsv|*.xlsx",))},
        _records,
        _rows,
        unit="records",
    ),
)
