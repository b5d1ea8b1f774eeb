"""`lyrics data`: list, check, show, stats and prepare, as a user calls them."""

import json
import os

import datasets
import pytest
from PIL import Image

from lyrics.datasets_lyrics.catalog.registry import CATALOG
from lyrics.datasets_lyrics.open_data import open_rows
from lyrics_cli.main import main

from ..datasets_lyrics.catalog.data_sets import write


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_list_tells_what_to_download(capsys):
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name}: " in out for name in CATALOG)
    assert main(["data", "list", "--family", "text vqa", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == ["textvqa", "stvqa", "ocrvqa", "docvqa"]
    assert listed[0]["splits"] == {"train": 34_602, "val": 5_000, "test": 5_734}


def test_check_counts_faults_by_kind(tmp_path, capsys):
    root = write("vqav2", tmp_path)
    (root / "train2014/COCO_train2014_000000000008.jpg").write_bytes(b"no image")
    assert main(["data", "check", "vqav2", "--root", str(root), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["pictures"], found["expected"]) == (3, 2, 443_757)
    assert found["faults"] == {
        "question without an annotation": 1,
        "no field 'question'": 1,
        "annotation without a question": 1,
        "unreadable image": 1,
    }
    assert "000000000008.jpg" in found["examples"]["unreadable image"][0]
    assert main(["data", "check", f"vqav2:{root}"]) == 1
    out = capsys.readouterr().out
    assert "which differs from the 443,757" in out
    assert "Faults: 4" in out


def test_check_of_data_without_a_usable_row(tmp_path, capsys):
    """The faults are listed by kind, as elsewhere."""
    root = write("table", tmp_path)
    (root / "a.jpg").unlink()
    assert main(["data", "check", "table", "--root", str(root)]) == 1
    out = capsys.readouterr().out
    assert "Rows: none from 2 records" in out
    assert "1  missing image" in out
    assert "mine.csv, line 2: a.jpg" in out


def test_repeated_ids_are_told(tmp_path, capsys):
    root = write("table", tmp_path)
    (root / "mine.csv").write_text("image,question,answer\na.jpg,What?,A dog\na.jpg,What?,A cat\n")
    assert main(["data", "check", "table", "--root", str(root)]) == 0
    assert "Repeated ids: 1 rows" in capsys.readouterr().out


def test_show_draws_what_cannot_be_read(tmp_path, capsys):
    """A link out of the folder and a text that turns its direction."""
    root = write("table", tmp_path)
    os.symlink("/etc/hostname", root / "b.jpg")
    (root / "mine.csv").write_text("image,question,answer\nb.jpg,What?,A \u202ereversed dog\n", encoding="utf-8")
    assert main(["data", "show", f"table:{root}", "--save", str(tmp_path / "sheet.png")]) == 0
    assert "Wrote 1 of 1 rows" in capsys.readouterr().out


def test_check_of_good_data(tmp_path, capsys):
    root = write("table", tmp_path)
    (root / "mine.csv").write_text("image,question,answer\na.jpg,What?,A dog\n")
    assert main(["data", "check", "table", "--root", str(root / "mine.csv")]) == 0
    assert "Faults: 0" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["refcoco", "flickr30k_entities", "scienceqa"])
def test_show_draws_a_sheet(name, tmp_path, capsys):
    root, sheet = write(name, tmp_path), tmp_path / "sheet.png"
    assert main(["data", "show", name, "--root", str(root), "-n", "4", "--save", str(sheet)]) == 0
    assert Image.open(sheet).width > 360
    assert "Wrote" in capsys.readouterr().out


def test_stats(tmp_path, capsys):
    word = f"refcoco:{write('refcoco', tmp_path)}"
    assert main(["data", "stats", word]) == 0
    out = capsys.readouterr().out
    assert "Boxes: 2; by area: below 1 % 0, 1 to 10 % 0, 10 to 50 % 2" in out
    assert "1  bad box\n             refs(unc).p, ref 4: [" in out
    assert main(["data", "stats", word, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == {"bad box": 1, "no annotation": 1}


def test_prepared_rows_are_the_rows(tmp_path, capsys):
    words = [f"{name}:{write(name, tmp_path)}" for name in ("vqav2", "refcoco")]
    out = tmp_path / "rows.parquet"
    assert main(["data", "prepare", *words, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert f"--image_root {tmp_path}" in told
    assert "vqav2 (train) in" in told
    assert "1  missing image" in told
    prepared = open_rows(out, image_root=tmp_path)
    expected = [row for word in words for row in open_rows(word)]
    assert len(prepared) == len(expected) == 4
    for one, other in zip(prepared, expected, strict=True):
        assert one["images"] == other["images"]
        assert one["id"] == other["id"]
        texts = [block["text"] for message in one["messages"] for block in message["content"]]
        assert texts == [block.get("text") for message in other["messages"] for block in message["content"]]


def test_prepared_captions_can_be_pretrained_on(tmp_path, capsys):
    """By the command that is printed: each row has its image and its captions."""
    word, out = f"flickr30k:{write('flickr30k', tmp_path)}", tmp_path / "rows.parquet"
    assert main(["data", "prepare", word, "--out", str(out)]) == 0
    root = capsys.readouterr().out.rpartition("--image_root ")[2].strip()
    prepared, expected = open_rows(out, image_root=root), open_rows(word, need_captions=True)
    assert len(prepared) == len(expected) > 0
    for one, other in zip(prepared, expected, strict=True):
        assert (one["image"], one["caption"]) == (other["image"], other["caption"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "vqav3", "--root", "."], "There is no data set 'vqav3'"),
        (["check", "vqav2"], "--root is missing"),
        (["check", "vqav2", "--root", "none"], "There is no folder"),
        (["check", "vqav2", "--root", "."], "There is no v2_OpenEnded_mscoco_train2014_questions.json"),
        (["check", "vqav2", "--root", ".", "--split", "dev"], "no split 'dev'; its splits are train, val"),
        (["list", "--family", "audio"], "There is no family 'audio'"),
        (["show", "vqav2", "--root", ".", "--save", "a.xyz"], "no image can be written as '.xyz'"),
        (["prepare", "vqav2:.", "--out", "rows.csv"], "must end in .parquet"),
        (["stats", "vqav2:"], "--root is missing"),
        (["stats", "vqav2:.", "--root", "."], "give one of them"),
        (["list", "refcco"], "Did you mean refcoco"),
    ],
)
def test_wrong_arguments(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lyrics data: error: ")
    assert message in error
    assert os.listdir(tmp_path) == []


def save_rows(folder, rows):
    Image.new("RGB", (40, 20)).save(folder / "a.png")
    Image.new("RGB", (40, 2)).save(folder / "flat.png")
    (folder / "broken.png").write_bytes(b"no image")
    place = folder / "rows.jsonl"
    place.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(place)


def ask(picture, box, answer="yes"):
    content = [{"type": "text", "text": "Is it "}, {"type": "box", "box": box}]
    return {
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}],
        "images": [picture],
    }


def test_check_reads_own_rows_as_training_does(tmp_path, capsys):
    good = [0.1, 0.2, 0.5, 0.9]
    rows = [
        ask("a.png", good),
        ask("a.png", [0.5, 0.5, 0.2, 0.2]),  # x, y, width, height
        ask("a.png", [4.0, 4.0, 20.0, 18.0]),
        ask("a.png", good, answer=" "),
        ask("broken.png", good),
        ask("flat.png", good),
        ask("../a.png", good),
        ask("none.png", good),
    ]
    place = save_rows(tmp_path, rows)
    assert main(["data", "check", place, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == {
        "corners not in order": 1,
        "unusable row": 2,  # pixels, and a path out of the folder
        "empty answer": 1,
        "unreadable image": 2,
        "tiny image": 1,
    }
    assert (found["rows"], found["pictures"], found["boxes"]) == (8, 1, 1)
    assert found["kinds"] == {"conversations": 7}
    assert found["examples"]["corners not in order"][0].startswith("row 1: [0.5, 0.5, 0.2, 0.2] in [0, 1]")
    assert "--box_units pixel" in found["examples"]["unusable row"][0]
    assert "lies outside" in found["examples"]["unusable row"][1]


def test_check_of_captions_and_of_pixel_boxes(tmp_path, capsys):
    rows = [{"picture": "a.png", "text": "a cup"}, {"picture": "a.png", "text": ""}, {"picture": "a.png"}]
    place = save_rows(tmp_path, rows)
    columns = ["--image-column", "picture", "--caption-column", "text"]
    assert main(["data", "check", place, *columns]) == 1
    out = capsys.readouterr().out
    assert "3 rows (3 captions)" in out
    assert "1  empty caption" in out
    assert "1  no text" in out
    place = save_rows(tmp_path, [ask("a.png", [4.0, 4.0, 20.0, 18.0])])
    assert main(["data", "check", place, "--box-units", "pixel"]) == 0
    assert "1 images, 1 boxes\nFaults: 0" in capsys.readouterr().out


def test_check_of_preferences(tmp_path, capsys):
    told, asked = {"role": "system", "content": "Be brief."}, [{"role": "user", "content": "Is it red?"}]
    yes, no = ([{"role": "assistant", "content": answer}] for answer in ("Yes.", "No."))
    rows = [
        {"images": ["a.png"], "prompt": asked, "chosen": yes, "rejected": no},
        {"image": "a.png", "prompt": "Is it red?", "chosen": "Yes.", "rejected": "No."},
        {"images": ["a.png"], "prompt": asked, "chosen": yes, "rejected": yes},
        {"images": ["a.png"], "prompt": asked, "chosen": yes},
        {"images": ["a.png"], "prompt": "Is it red?", "chosen": yes, "rejected": no},
        {"images": ["broken.png"], "prompt": asked, "chosen": yes, "rejected": no},
        {"images": ["a.png"], "prompt": "Is it red?", "chosen": " ", "rejected": "No."},
        {"images": ["a.png"], "prompt": "Is it red?", "chosen": ["Yes."], "rejected": ["No."]},
        {"images": "a.png", "prompt": [told, {**asked[0], "content": " "}], "chosen": yes, "rejected": no},
        {**ask("a.png", [0.1, 0.2, 0.5, 0.9]), "rejected": False},  # a conversation with a column of its own
        {"images": "a.png", "prompt": [told, *asked], "chosen": yes, "rejected": no},
    ]
    assert main(["data", "check", save_rows(tmp_path, rows), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["kinds"], found["pictures"]) == ({"preferences": 10, "conversations": 1}, 1)
    assert found["faults"] == {
        "equal answers": 1,
        "no rejected": 1,
        "unusable row": 2,
        "unreadable image": 1,
        "empty chosen": 1,
        "empty prompt": 1,
    }
    assert [example.split(":")[0] for example in found["examples"]["unusable row"]] == ["row 4", "row 7"]


def test_check_of_prompts_for_rewards(tmp_path, capsys):
    rows = [
        {"images": ["a.png"], "prompt": "How many?", "expected_count": 2},
        {"images": ["a.png"], "prompt": "Where?", "expected_boxes": [[0.1, 0.2, 0.3, 0.4]]},
        {"images": ["a.png"], "prompt": "Where?", "expected_boxes": [[4, 4, 20, 18]], "box_units": "pixel"},
        {"images": ["a.png"], "prompt": "How many?", "expected_count": "two"},
        {"images": ["a.png"], "prompt": "Where?", "expected_boxes": [[4, 4, 20, 18]]},
        {"images": ["a.png"], "prompt": " ", "expected_count": 2},
        {"images": ["a.png"], "prompt": "Where?", "expected_boxes": [[0.5, 0.5, 0.2, 0.2]]},  # x, y, width, height
    ]
    assert main(["data", "check", save_rows(tmp_path, rows)]) == 1
    out = capsys.readouterr().out
    assert "7 rows (7 prompts)\n1 images, 2 boxes\nFaults: 4" in out
    assert "1  corners not in order" in out
    assert "expected_count must be a whole number, got 'two'" in out
    assert "lies outside of its image" in out
    assert "The question is empty" in out


def test_check_refuses_options_of_another_kind_of_data(tmp_path, capsys):
    place = save_rows(tmp_path, [ask("a.png", [0.1, 0.2, 0.5, 0.9])])
    assert main(["data", "check", place, "--root", str(tmp_path)]) != 0
    assert "--root and --no-images are for data sets of the field" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "none.jsonl")]) != 0
    assert "none.jsonl" in capsys.readouterr().err
