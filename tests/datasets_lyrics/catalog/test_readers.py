"""Readers of the catalog: golden rows of every format, what is left out, and hostile files."""

import json
import os
import pickle
from pathlib import Path

import pytest

from lyrics.datasets_lyrics.catalog.formats import Family
from lyrics.datasets_lyrics.catalog.referring import load_plain_pickle
from lyrics.datasets_lyrics.catalog.registry import CATALOG, open_reader, open_word
from lyrics.datasets_lyrics.catalog.rows import canonical_rows
from lyrics.datasets_lyrics.conversations import read_conversation

from .data_sets import WRITERS, coco, put, write

GOLDEN = Path(__file__).with_name("golden_rows.json")


def read(name, root):
    """Rows and omissions of a data set, in JSON types."""
    reader = open_reader(name, root)
    rows = json.loads(json.dumps(list(canonical_rows(reader))))
    return rows, dict(sorted(reader.folder.omissions.counts.items()))


def test_every_format_has_a_data_set():
    assert set(WRITERS) == set(CATALOG)
    assert {one.family for one in CATALOG.values()} <= set(Family.__args__)


@pytest.mark.parametrize("name", CATALOG)
def test_golden_rows(name, tmp_path):
    """Every field of every row, and the count of every fault."""
    rows, omitted = read(name, write(name, tmp_path))
    golden = json.loads(GOLDEN.read_text())[name]
    assert rows == golden["rows"]
    assert omitted == golden["omitted"]
    for row in rows:
        conversation = read_conversation({**row, "images": [f"/{path}" for path in row["images"]]})
        assert len(conversation.pictures) == len(row["images"])


@pytest.mark.parametrize("name", CATALOG)
def test_boxes_are_normalized(name, tmp_path):
    for row in read(name, write(name, tmp_path))[0]:
        boxes = [region["box"] for region in row["regions"]]
        boxes += [b["box"] for message in row["messages"] for b in message["content"] if b["type"] == "box"]
        for x1, y1, x2, y2 in boxes:
            assert 0 <= x1 < x2 <= 1
            assert 0 <= y1 < y2 <= 1


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"v2_OpenEnded_mscoco_train2014_questions\.json"):
        list(open_reader("vqav2", tmp_path))


def test_a_field_that_no_record_has_stops_the_reading(tmp_path):
    root = write("vizwiz", tmp_path)
    (root / "train.json").write_text('[{"image": "VizWiz_train_00000007.jpg", "frage": "?"}]')
    with pytest.raises(ValueError, match=r"no usable row among 1 records.*no field 'question'.*'frage'"):
        list(open_reader("vizwiz", root))


def test_another_size_than_the_field_reports_is_told(tmp_path):
    reader = open_reader("vqav2", write("vqav2", tmp_path))
    list(reader)
    assert (reader.summary.counted, reader.summary.expected, reader.summary.differs) == (5, 443_757, True)


def test_a_word_names_data_set_and_folder(tmp_path):
    root = write("table", tmp_path)
    assert [row.answers for row in open_word(f"table:{root}")] == [["A dog"]]
    assert [row.answers for row in open_word(f"table:{root / 'mine.csv'}")] == [["A dog"]]
    with pytest.raises(ValueError, match="names no folder"):
        open_word("table:")
    with pytest.raises(ValueError, match=r"There is no data set 'tabel'\. Did you mean table\?"):
        open_reader("tabel", root)
    with pytest.raises(ValueError, match=r"There is no data set 'quux'\. Known are coco_captions, "):
        open_reader("quux", root)
    with pytest.raises(ValueError, match="no split 'dev'; its splits are train"):
        open_reader("table", root, "dev")


def test_a_named_file_is_the_one_that_is_read(tmp_path):
    """Its split is the one whose file has its name, so that its other files and its size are right."""
    root = write("vqav2", tmp_path)
    for path in root.glob("*train2014*.json"):
        path.rename(root / path.name.replace("train2014", "val2014"))
    reader = open_word(f"vqav2:{root}/v2_OpenEnded_mscoco_val2014_questions.json")
    assert (reader.split, len(list(reader)), reader.summary.expected) == ("val", 2, 214_354)
    root = write("coco_karpathy", tmp_path)
    (root / "dataset_coco.json").rename(root / "mine.json")
    assert len(list(open_word(f"coco_karpathy/test:{root}/mine.json"))) == 1
    root = write("refcoco", tmp_path)
    (root / "refcoco/refs(unc).p").rename(root / "refcoco/refs(google).p")
    put(root, f"refcoco/{coco(7)}")
    assert len(list(open_word(f"refcoco:{root}/refcoco/refs(google).p"))) == 2
    root = write("voc", tmp_path)
    with pytest.raises(ValueError, match=r"a\.xml is one file of many: name the folder"):
        list(open_word(f"voc:{root}/Annotations/a.xml"))


def test_hidden_files_are_no_data(tmp_path):
    """An archive of a Mac has `._NAME` beside NAME, and an open spreadsheet leaves `~$NAME`."""
    root = write("shikra", tmp_path)
    (root / "._REC_ref3_train.jsonl").write_bytes(b"\0\5")
    assert len(list(open_reader("shikra", root))) == 1
    root = write("yolo", tmp_path)
    (root / "labels/train/._a.txt").write_bytes(b"\0\5")
    assert len(list(open_reader("yolo", root))) == 1


def test_yolo_as_roboflow_writes_it(tmp_path):
    root = write("yolo", tmp_path)
    os.mkdir(root / "valid")
    os.rename(root / "labels/train", root / "valid/labels")
    os.rename(root / "images/train", root / "valid/images")
    for place in (root, root / "data.yaml"):
        (row,) = open_reader("yolo", place, "val")
        assert row.images == ["valid/images/a.jpg"]


class Evil:
    def __reduce__(self):
        return (print, ("code of a pickle ran",))


def test_a_pickle_runs_no_code(tmp_path, capsys):
    for content in (pickle.dumps([Evil()]), b"\x80\x04cos\nsystem\n.", b"no pickle", b""):
        (tmp_path / "refs(unc).p").write_bytes(content)
        with pytest.raises(ValueError, match=r"refs\(unc\).p cannot be read"):
            load_plain_pickle(tmp_path / "refs(unc).p")
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "record",
    [
        None,
        7,
        "text",
        [],
        {},
        {"image": 5, "question": "?", "answers": []},
        {"image": "../../etc/passwd", "question": "?", "answers": [{"answer": "x"}]},
        {"image": "/etc/passwd", "question": "?", "answers": [{"answer": "x"}]},
        {"image": "VizWiz_train_00000007.jpg", "question": "?", "answers": [{"answer": 5}]},
        {"image": "VizWiz_train_00000007.jpg", "question": "?", "answers": {"answer": "x"}},
    ],
)
def test_hostile_records_are_counted(tmp_path, record):
    """A record of any shape costs itself alone."""
    root = write("vizwiz", tmp_path)
    good = json.loads((root / "train.json").read_text())[0]
    (root / "train.json").write_text(json.dumps([record, good]))
    reader = open_reader("vizwiz", root)
    assert len(list(reader)) == 1
    assert reader.folder.omissions.total == 1
