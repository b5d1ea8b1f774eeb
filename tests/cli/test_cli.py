"""The `lyrics` command as a user runs it."""

import json

import pytest
import torch
import transformers
from PIL import Image

from lyrics.assets import EXAMPLE_PICTURE, draw_table
from lyrics.modeling_lyrics import LyricsForConditionalGeneration, describe_provenance
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects
from lyrics_cli.common import printable
from lyrics_cli.main import main

from ..cards import check_card, run_quick_start


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """What `lyrics init` writes."""
    folder = tmp_path_factory.mktemp("init") / "micro"
    assert main(["init", "--size", "micro", "--out", str(folder)]) == 0
    return str(folder)


def run(capsys, *arguments):
    """Exit code, output and error output of a command."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_init_writes_a_complete_checkpoint(checkpoint, capsys, tmp_path):
    """Model, processor and refiner; equal seeds give equal weights, and a full directory is left alone."""
    model, processor = (
        LyricsForConditionalGeneration.from_pretrained(checkpoint),
        LyricsProcessor.from_pretrained(checkpoint),
    )
    assert processor.refine(EXAMPLE_PICTURE)[0].labels
    assert (
        main(["init", "--out", str(tmp_path / "same")])
        == main(["init", "--out", str(tmp_path / "other"), "--seed", "1"])
        == 0
    )
    same, other = (LyricsForConditionalGeneration.from_pretrained(tmp_path / name) for name in ("same", "other"))
    key = "model.mqformer.query_tokens"
    assert torch.equal(model.state_dict()[key], same.state_dict()[key])
    assert not torch.equal(model.state_dict()[key], other.state_dict()[key])
    code, _, error = run(capsys, "init", "--out", checkpoint)
    assert code == 2
    assert "is not an empty directory" in error


def test_init_leaves_the_callers_random_numbers_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    main(["init", "--out", str(tmp_path / "new")])
    assert torch.equal(torch.rand(1), expected)


def test_ask(checkpoint, capsys, tmp_path):
    overlay = tmp_path / "seen.png"
    code, out, _ = run(
        capsys,
        "ask",
        EXAMPLE_PICTURE,
        "What is on the table?",
        "--model",
        checkpoint,
        "--save",
        overlay,
        "--max-new-tokens",
        4,
    )
    assert code == 0
    assert out.startswith("Answer: ")
    assert "Objects (" in out
    assert f"Image with the objects' boxes: {overlay}" in out
    assert Image.open(overlay).size == draw_table().size


def test_ask_gives_json_and_takes_stored_objects(checkpoint, capsys, tmp_path):
    """The objects of `refine --out` stand in for the refiner."""
    one = VisualObjects(
        labels=["cup"], boxes=[[0.1, 0.2, 0.3, 0.4]], scores=[0.5], region_features=torch.rand(1, 36), tags=["cup"]
    )
    one.save(tmp_path / "cup.safetensors")
    code, out, _ = run(
        capsys,
        "ask",
        EXAMPLE_PICTURE,
        "What?",
        "--model",
        checkpoint,
        "--objects",
        tmp_path / "cup.safetensors",
        "--json",
        "--max-new-tokens",
        3,
    )
    assert code == 0
    answer = json.loads(out)
    assert answer["objects"] == [{"label": "cup", "score": 0.5, "box": [0.1, 0.2, 0.3, 0.4]}]
    assert answer["tags"] == ["cup"]
    assert answer["versions"]["transformers"] == transformers.__version__
    processor = LyricsProcessor.from_pretrained(checkpoint)
    assert answer["refiner"]["fingerprint"] == processor.refiner_fingerprint
    assert answer["refiner"]["thresholds"]["box_threshold"] == processor.refiner_config.box_threshold
    model = LyricsForConditionalGeneration.from_pretrained(checkpoint)
    assert answer["model"] == describe_provenance(model, processor)["model"]
    assert answer["why"] is None


def test_ask_says_why(checkpoint, capsys, tmp_path):
    why = tmp_path / "why.png"
    more = ("--model", checkpoint, "--json", "--max-new-tokens", 3, "--why", why)
    code, out, _ = run(capsys, "ask", EXAMPLE_PICTURE, "What?", *more)
    assert code == 0
    answer = json.loads(out)
    assert Image.open(why).size == draw_table().size
    weights = [one["weight"] for one in answer["why"]["objects"]]
    assert len(weights) == len(answer["objects"]) == len(answer["why"]["queries"][0])
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1)


def test_refine_many_pictures(checkpoint, capsys, tmp_path):
    """Images of different sizes and modes, two of one name; one that cannot be read is named, the others are done."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, size in zip(folders, ((480, 320), (90, 200)), strict=True):
        folder.mkdir()
        draw_table().resize(size).save(folder / "photo.png")
    draw_table().convert("L").save(tmp_path / "grey.png")
    Image.new("RGBA", (50, 50)).save(tmp_path / "clear.png")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    images = [*(folder / "photo.png" for folder in folders), tmp_path / "grey.png", tmp_path / "clear.png"]
    code, out, error = run(
        capsys,
        "refine",
        *images,
        tmp_path / "broken.jpg",
        "--model",
        checkpoint,
        "--out",
        tmp_path / "seen",
        "--json",
        "--batch-size",
        2,
    )
    assert code == 2
    assert "broken.jpg" in error
    assert "Traceback" not in error
    seen = json.loads(out)
    assert [one["image"] for one in seen] == list(map(str, images))
    assert len({one["data"] for one in seen}) == 4
    for one in seen:
        objects = VisualObjects.load(one["data"])
        assert [item["label"] for item in one["objects"]] == objects.labels
        Image.open(one["overlay"]).verify()


def test_refine_without_any_object(checkpoint, capsys):
    """An image in which nothing is found is a normal result; the words to look for can be given."""
    code, out, _ = run(capsys, "refine", EXAMPLE_PICTURE, "--model", checkpoint, "--tags", "zebra, fire truck")
    assert code == 0
    assert "Tags: zebra, fire truck" in out
    code, out, _ = run(capsys, "refine", EXAMPLE_PICTURE, "--model", checkpoint, "--tags", ".")
    assert code == 0
    assert "Objects: none" in out


def test_convert(published, capsys, tmp_path, monkeypatch):
    out = tmp_path / "native"
    code, _, _ = run(capsys, "convert", published, "--out", out, "--dtype", "bfloat16")
    assert code == 0
    model = LyricsForConditionalGeneration.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert LyricsProcessor.from_pretrained(out).refiner.dtype == torch.bfloat16
    assert (out / "refiner" / "model.safetensors").is_file()
    card = check_card(out, license="gpl-3.0", base_model=None)
    assert "GPL-3.0. It follows the published weights" in card.text
    assert "Visual refiner: tagger `ram` with" in card.text
    assert run_quick_start(card, monkeypatch, out)
    code, _, error = run(capsys, "export", out, "--out", tmp_path / "ready", "--license", "mit")
    assert code == 2
    assert "The licence cannot be 'mit'" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "no.jpg", "What?", "--model", "CHECKPOINT"], "The image 'no.jpg' does not exist"),
        (
            ["ask", "EXAMPLE", "What?", "--model", "/no/such/place"],
            "there is no such directory, and it is not a Hub id",
        ),
        (["ask", "EXAMPLE", "What?", "--model", "CHECKPOINT", "--device", "cuda:99"], "cannot run on device 'cuda:99'"),
        (["ask", "EXAMPLE", "What?", "--model", "CHECKPOINT", "--device", "toaster"], "cannot run on device 'toaster'"),
        (
            ["ask", "EXAMPLE", "What?", "--model", "CHECKPOINT", "--objects", "EXAMPLE"],
            "is not a file of visual objects",
        ),
        (["refine", "EXAMPLE", "--model", "CHECKPOINT", "--tag-thresholds", "EXAMPLE"], "error"),
        (["convert", "CHECKPOINT", "--out", "CHECKPOINT"], "is not an empty directory"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(checkpoint, capsys, arguments, message):
    names = {"CHECKPOINT": checkpoint, "EXAMPLE": EXAMPLE_PICTURE}
    code, out, error = run(capsys, *(names.get(argument, argument) for argument in arguments))
    assert code == 2
    assert out == ""
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith(f"lyrics {arguments[0]}: error: ")


@pytest.mark.parametrize(
    "arguments", [[], ["ask"], ["ask", "a.jpg"], ["dance"], ["init", "--size", "huge", "--out", "x"]]
)
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: lyrics" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["ask", "chat", "refine", "refine-dataset", "store", "init", "convert"])
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"lyrics {command} " in capsys.readouterr().out.split("example")[1]


def test_answers_cannot_steer_the_terminal():
    assert printable("a\x1b[2Jb\nc\x07é") == "a\\x1b[2Jb\nc\\x07é"
