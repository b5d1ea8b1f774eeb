"""Readers of the catalog: golden rows of every format, what is left out, and hostile files."""

import json
import os
import pickle
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from lyrics.datasets_lyrics.catalog.formats import Family
from lyrics.datasets_lyrics.catalog.referring import load_plain_pickle
from lyrics.datasets_lyrics.catalog.registry import CATALOG, open_reader, open_word
from lyrics.datasets_lyrics.catalog.rows import canonical_rows
from lyrics.datasets_lyrics.conversations import read_conversation

from .data_sets import WRITERS, coco, dump, dump_lines, put, write

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


@pytest.mark.parametrize("name", ["vqav2", "textvqa", "vizwiz"])
def test_annotators_who_said_nothing_are_counted_and_not_learned_from(name, tmp_path):
    """VQA accuracy leaves out one of all annotators; an answer that a model learns has words."""
    root = write(name, tmp_path)
    for path in root.rglob("*.json"):
        content = json.loads(path.read_text())
        for row in content if isinstance(content, list) else content.get("annotations", content.get("data", [])):
            if "answers" in row:
                given = [row["answers"][0], *(["" if name == "textvqa" else {"answer": ""}] * 9)]
                row["answers"] = given
        path.write_text(json.dumps(content))
    row = read(name, root)[0][0]
    assert row["answers"] == [row["answers"][0], *[""] * 9]
    assert row["answers"][0]
    assert row["messages"][-1]["content"][0]["text"] == row["answers"][0]


def test_a_system_message_and_a_history_beside_the_turns(tmp_path):
    """As LLaMA-Factory and ms-swift write them; a system message among the turns stands for itself."""
    put(tmp_path, "a.jpg")
    turns = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]
    begun = [{"from": "system", "value": "Be brief."}, *turns]
    rows = [{"conversations": some, "images": ["a.jpg"], "system": "Be kind."} for some in (turns, begun)]
    dump(tmp_path / "llamafactory.json", rows)
    asked = {"query": "<image>Why?", "response": "So.", "images": ["a.jpg"], "history": [["Hello", "Hi."]]}
    dump_lines(tmp_path / "swift.jsonl", [{**asked, "system": "Be kind."}, {**asked, "history": ["Hello"]}])

    def texts(row):
        return [block["text"] for message in row["messages"] for block in message["content"] if "text" in block]

    assert [texts(row) for row in read("llamafactory", tmp_path / "llamafactory.json")[0]] == [
        ["Be kind.", "Hello", "Hi."],
        ["Be brief.", "Hello", "Hi."],
    ]
    rows, faults = read("swift", tmp_path / "swift.jsonl")
    assert [texts(row) for row in rows] == [["Be kind.", "Hello", "Hi.", "Why?", "So."]]
    assert faults == {"malformed record": 1}


def test_pixels_are_those_of_the_upright_image(tmp_path):
    """A camera held on its side writes a turned image and its orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (400, 300)).save(tmp_path / "a.jpg", exif=exif)
    messages = [{"role": "user", "content": "<image>Where?"}, {"role": "assistant", "content": "<bbox>"}]
    row = {"messages": messages, "images": ["a.jpg"], "objects": {"bbox": [[30, 200, 150, 300]]}}
    dump_lines(tmp_path / "rows.jsonl", [row])
    read_row = read("swift", tmp_path / "rows.jsonl")[0][0]
    assert read_row["messages"][1]["content"][0]["box"] == pytest.approx([0.1, 0.5, 0.5, 0.75])


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


def test_one_bad_part_of_a_record_costs_itself_alone(tmp_path):
    """A box of an image, a region of an image, a category of a file."""
    root = write("voc", tmp_path)
    path = root / "Annotations/a.xml"
    bad = "<object><name>cat</name><bndbox><xmin>90</xmin><ymin>1</ymin><xmax>99</xmax><ymax>9</ymax></bndbox></object>"
    path.write_text(path.read_text().replace("</annotation>", f"{bad}</annotation>"))
    reader = open_reader("voc", root)
    ((region,),) = [row.regions for row in reader]
    assert (region.phrase, reader.folder.omissions.counts["bad box"]) == ("dog", 1)
    root = write("vg_regions", tmp_path)
    (image,) = json.loads((root / "region_descriptions.json").read_text())
    image["regions"][1:] = ["x", {"region_id": 5}, None]
    dump(root / "region_descriptions.json", [image, 7, {"id": 2, "regions": "x"}])
    dump(root / "image_data.json", [{"image_id": 2, "width": None, "height": 30}])
    reader = open_reader("vg_regions", root)
    assert [row.id for row in reader] == ["20"]
    assert reader.folder.omissions.total == 5  # three of the image, those of 7, and the letter of the last
    root = write("coco_detection", tmp_path)
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["categories"] += [{"id": [1], "name": "x"}, 7]
    dump(path, content)
    assert len(list(open_reader("coco_detection", root))) == 1


@pytest.mark.parametrize(
    ("name", "file", "change"),
    [
        ("coco_karpathy", "dataset_coco.json", ('"split": "restval"', '"split": "training"')),
        ("ocrvqa", "dataset.json", ('"split": 3', '"split": "test"')),
        ("visual7w_telling", "dataset_v7w_telling.json", ('"split": "val"', '"split": "dev"')),
    ],
)
def test_a_split_that_does_not_exist_is_told(name, file, change, tmp_path):
    path = write(name, tmp_path) / file
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    reader = open_reader(name, path.parent)
    list(reader)
    assert reader.folder.omissions.counts["unknown split"] == 1


def test_what_one_file_lists_and_the_other_lacks_is_told(tmp_path):
    root = write("scienceqa", tmp_path)
    dump(root / "pid_splits.json", {"train": ["12", "99"]})
    reader = open_reader("scienceqa", root)
    assert len(list(reader)) == 1
    assert reader.folder.omissions.counts == {"missing problem": 1}
    root = write("vqav2", tmp_path)
    path = root / "v2_mscoco_train2014_annotations.json"
    notes = json.loads(path.read_text())["annotations"]
    dump(path, {"annotations": notes + notes[:1]})
    reader = open_reader("vqav2", root)
    assert len(list(reader)) == 2
    assert reader.folder.omissions.counts["repeated annotation"] == 1
    assert reader.folder.omissions.counts["annotation without a question"] == 1


def test_flickr_as_its_authors_write_it(tmp_path):
    """Lines of name, number and caption; an image without captions and a missing one are told."""
    put(tmp_path, "flickr30k-images/7.jpg", "flickr30k-images/8.jpg")
    lines = ["7.jpg#0\tA dog runs .", "7.jpg#1\tEin Hund läuft .", "", "8.jpg", "9.jpg#0\tGone ."]
    (tmp_path / "results_20130124.token").write_text("\r\n".join(lines), encoding="utf-8-sig")
    reader = open_reader("flickr30k", tmp_path, "all")
    assert [(row.id, row.answers) for row in reader] == [("7.jpg", ["A dog runs .", "Ein Hund läuft ."])]
    assert reader.folder.omissions.counts == {"missing image": 1, "empty text": 1}


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
        {"image": "VizWiz_train_00000007.jpg", "question": "half \ud83d", "answers": [{"answer": "x"}]},
        {"image": "x" * 5000, "question": "?", "answers": [{"answer": "x"}]},
        {"image": "\0", "question": "?", "answers": [{"answer": "x"}]},
        {"image": "https://example.org/a.jpg", "question": "?", "answers": [{"answer": "x"}]},
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
