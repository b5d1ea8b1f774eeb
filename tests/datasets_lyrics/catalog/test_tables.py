"""Tables of file, question and answer: CSV in the forms that spreadsheets save, and spreadsheets themselves."""

import sys
import zipfile

import openpyxl
import pytest

from lyrics.datasets_lyrics.catalog.registry import open_reader, open_word

from .data_sets import put

HEADER = ["File", "Question", "Answer"]


def save(path, *rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.create_sheet("notes").append(["not", "read"])
    book.save(path)
    return path


def said(path):
    return [(row.images, row.question, row.answers) for row in open_word(f"table:{path}")]


def test_a_spreadsheet_is_the_table_that_it_shows(tmp_path):
    put(tmp_path, "a.jpg", "7")
    path = save(tmp_path / "mine.xlsx", HEADER, ["a.jpg", "How many?", 3.0], [], ["a.jpg", " Wo? ", "Zürich"])
    assert said(path) == said(tmp_path) == [(["a.jpg"], "How many?", ["3"]), (["a.jpg"], "Wo?", ["Zürich"])]
    path = save(path, ["picture", "answer", None, "note"], [7, "A dog.", None, "x"])
    assert said(path) == [(["7"], "", ["A dog."])]


def test_what_a_spreadsheet_lacks_is_counted_by_line(tmp_path):
    put(tmp_path, "a.jpg")
    rows = [["a.jpg", "What?", None], ["b.jpg", "What?", "A cat"], [None, "What?"], ["a.jpg", "What?", "A dog"]]
    reader = open_reader("table", save(tmp_path / "mine.xlsx", HEADER, *rows).parent)
    assert len(list(reader)) == 1
    assert reader.folder.omissions.counts == {"empty text": 2, "missing image": 1}
    assert reader.folder.omissions.examples["missing image"] == ["mine.xlsx, line 3: b.jpg"]


def test_a_spreadsheet_is_not_held_in_memory_by_its_stated_size(tmp_path):
    """Some programs state the size of a sheet wrongly."""
    put(tmp_path, "a.jpg")
    path = save(tmp_path / "mine.xlsx", HEADER, *[["a.jpg", "What?", str(number)] for number in range(5)])
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    sheet = members["xl/worksheets/sheet1.xml"]
    assert b'ref="A1:C6"' in sheet
    members["xl/worksheets/sheet1.xml"] = sheet.replace(b'ref="A1:C6"', b'ref="A1"')
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert len(said(path)) == 5


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_spreadsheet_is_named(tmp_path, content):
    (tmp_path / "mine.xlsx").write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.xlsx is no spreadsheet that can be read"):
        said(tmp_path)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    save(tmp_path / "mine.xlsx", HEADER)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ImportError, match=r"This needs openpyxl: pip install 'ziya-lyrics\[spreadsheets\]'"):
        said(tmp_path)


def test_wrong_columns_and_several_tables_are_told(tmp_path):
    path = save(tmp_path / "mine.xlsx", ["Bild", "Antwort"], ["a.jpg", "x"])
    with pytest.raises(ValueError, match=r"needs a column with the image's file .* its columns are 'bild', 'antwort'"):
        said(path)
    (tmp_path / "mine.csv").write_text("file,answer\n")
    with pytest.raises(ValueError, match=r"several files .*: mine\.csv, mine\.xlsx\. Name the one to read"):
        said(tmp_path)
    (tmp_path / "old.xls").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"old\.xls is no table that is read here: save it as"):
        said(tmp_path / "old.xls")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ('file,question,answer\r\na.jpg,"a, ""b""",Zürich\r\n', "utf-8-sig"),
        ('file;question;answer\na.jpg;a, "b";Zürich\n', "utf-8"),
        ('file\tquestion\tanswer\ra.jpg\ta, "b"\tZürich\r', "utf-8"),
    ],
)
def test_csv_of_every_program(tmp_path, text, encoding):
    put(tmp_path, "a.jpg")
    (tmp_path / "mine.csv").write_bytes(text.encode(encoding))
    assert said(tmp_path) == [(["a.jpg"], 'a, "b"', ["Zürich"])]
