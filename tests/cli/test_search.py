"""`lyrics search` with the models that ship: what is found, what is said, and what is refused."""

import json
import shutil

import pytest
from PIL import Image

from lyrics.assets import EXAMPLE_PICTURE, MICRO_CHECKPOINT, SCENE_PICTURE
from lyrics.evaluation.metrics.retrieval import RERANKED
from lyrics.recipes.micro.world.scenes import draw_test_scene
from lyrics_cli.main import build_parser, main


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("my images") / "phötos"
    folder.mkdir()
    shutil.copy(SCENE_PICTURE, folder)
    shutil.copy(EXAMPLE_PICTURE, folder)
    draw_test_scene(90_000).image.save(folder / "other.jpg")
    (folder / "broken\n.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return folder


def test_the_command_scores_as_many_pairs_as_the_class_does():
    assert build_parser().parse_args(["search", "images", "a ring"]).rerank == RERANKED


def test_search_by_a_text_and_by_a_picture(photos, tmp_path, capsys):
    sheet = tmp_path / "found.png"
    assert main(["search", str(photos), "a red ring", "--save", str(sheet)]) == 0
    printed = capsys.readouterr()
    assert "No --model is given" in printed.err
    assert "not indexed: broken\\n.png: The image is not in a format that can be read" in printed.err
    assert "Indexed 3 images in" in printed.err
    assert "similarity" in printed.out
    assert {line.split()[-1] for line in printed.out.splitlines()[:3]} == {"scene.png", "example.png", "other.jpg"}
    assert Image.open(sheet).width > 600
    assert main(["search", str(photos), "--image", str(SCENE_PICTURE), "--top", "1", "--json"]) == 0
    printed = capsys.readouterr()
    assert "Indexed" not in printed.err
    found = json.loads(printed.out)
    assert (found["pictures"], found["query"], list(found["failed"])) == (3, None, ["broken\n.png"])
    assert [one["picture"] for one in found["found"]] == ["scene.png"]
    assert found["found"][0]["similarity"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["EMPTY", "a ring"], "There is no image in"),
        (["nowhere", "a ring"], "nowhere is no file or folder: name a folder for the embeddings (--index DIR)"),
        (["./nowhere", "a ring"], "There is no ./nowhere."),
        (["EMPTY", "  "], "The query is empty"),
        (["EMPTY", "a ring", "--rerank", "-1"], "--rerank must be at least 0, got -1"),
        (["EMPTY", "a ring", "--save", "found.xyz"], "no image can be written as '.xyz'"),
        (["PHOTOS", "a ring", "--model", str(MICRO_CHECKPOINT)], "retrieval needs a first stage"),
        (["PHOTOS", "a ring", "--index", "PHOTOS"], "is neither empty nor an index"),
        (["PHOTOS", "--image", "nothing.png"], "nothing.png"),
        (["PHOTOS", "--image", ""], "--image is empty"),
        (["EMPTY", "a ring", "--save", "empty/found.png"], "the next search would find it there"),
    ],
)
def test_a_mistake_is_one_line(photos, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": "empty", "PHOTOS": str(photos)}
    assert main(["search", *(places.get(word, word) for word in words)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("lyrics search: error: ")
    assert message in last


@pytest.mark.parametrize("words", [[], ["a ring", "--image", "x.png"]])
def test_a_query_or_a_picture(photos, capsys, words):
    with pytest.raises(SystemExit):
        main(["search", str(photos), *words])
    assert "give either QUERY or --image" in capsys.readouterr().err
