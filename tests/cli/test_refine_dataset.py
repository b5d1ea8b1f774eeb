"""`lyrics refine-dataset` and `lyrics store` as a user runs them."""

import json

import pytest

from lyrics.assets import draw_table
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.refinement import RefinementStore
from lyrics_cli.main import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """What `lyrics init` writes."""
    folder = tmp_path_factory.mktemp("init") / "micro"
    assert main(["init", "--size", "micro", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three images and a damaged one, in a folder and in a file of captions."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        draw_table(60 + number, 40).save(folder / f"{number}.png")
    (folder / "broken.png").touch()
    rows = [{"id": f"id {number}", "file": f"{number}.png"} for number in range(3)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def store(checkpoint, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "seen"
    arguments = ["refine-dataset", photos, "--out", folder, "--model", checkpoint, "--max-failure-rate", "0.5"]
    assert main([*map(str, arguments), "--shard-size", "2"]) == 0
    return folder


def run(capsys, *arguments):
    """Exit code, output and error output of a command."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_folder(store, checkpoint, photos, capsys):
    """Said again, the command has nothing to do, and says the same."""
    assert list(RefinementStore.open(store).keys()) == ["0.png", "1.png", "2.png"]
    arguments = ["refine-dataset", photos, "--out", store, "--model", checkpoint, "--shard-size", 2]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert out.startswith(f"{store}: 3 images, ")
    assert out.endswith(f"not refined: 1, see {store}/failures.jsonl; --retry-failures tries them again\n")
    code, out, _ = run(capsys, *arguments, "--json")
    assert json.loads(out) == {"store": str(store), "pictures": 3, "failures": 1}


def test_a_file_of_captions(checkpoint, photos, tmp_path, capsys):
    """With the options of a source, and half precision."""
    options = ["--image-column", "file", "--key-column", "id", "--limit", 2, "--dtype", "bfloat16", "--masks"]
    source = photos / "captions.jsonl"
    code, _, _ = run(capsys, "refine-dataset", source, "--out", tmp_path / "seen", "--model", checkpoint, *options)
    assert code == 0
    seen = RefinementStore.open(tmp_path / "seen")
    assert list(seen.keys()) == ["id 0", "id 1"]
    assert seen.manifest.refiner.settings["dtype"] == "bfloat16"
    assert seen.manifest.rows.masks


def test_a_dry_run_counts_and_writes_nothing(checkpoint, photos, tmp_path, capsys):
    arguments = ["refine-dataset", photos, "--out", tmp_path / "seen", "--model", checkpoint, "--batch-size", 2]
    code, out, _ = run(capsys, *arguments, "--dry-run", "--workers", 2)
    assert code == 0
    assert "Images: 4, in 1 shard\nMeasured: 2 images, " in out
    assert "with 2 workers, " in out
    code, out, _ = run(capsys, *arguments, "--dry-run", "--json")
    assert json.loads(out)["pictures"] == 4
    assert not (tmp_path / "seen").exists()


def test_verify_stats_merge_and_export(store, tmp_path, capsys):
    code, out, _ = run(capsys, "store", "verify", store)
    assert (code, out) == (0, f"{store}: 9 files and 3 images are as they were written\n")
    code, out, _ = run(capsys, "store", "stats", store)
    assert "Images: 3, and 1 that could not be refined" in out
    assert "Region features: mask, 36 numbers each" in out
    assert json.loads(run(capsys, "store", "stats", store, "--json")[1])["pictures"] == 3
    code, out, _ = run(capsys, "store", "merge", store, "--out", tmp_path / "merged")
    assert (code, out) == (0, f"Wrote 3 images of 1 stores to {tmp_path / 'merged'}\n")
    code, out, _ = run(capsys, "store", "export", tmp_path / "merged", "--out", tmp_path / "parquet")
    assert (code, out) == (0, f"Wrote 3 images to {tmp_path / 'parquet'}\n")
    assert len(list((tmp_path / "parquet").glob("*.parquet"))) == 2


def test_a_store_is_used(store, checkpoint, photos, tmp_path, capsys):
    """By `ask` and by `pretrain`, which is given no refiner here; another refiner's is refused."""
    options = ["--model", checkpoint, "--store", store, "--max-new-tokens", 2]
    code, out, _ = run(capsys, "ask", photos / "0.png", "What is it?", *options)
    assert code == 0
    assert "Objects (" in out
    code, _, error = run(capsys, "ask", photos / "0.png", "What is it?", *options, "--dtype", "bfloat16")
    assert code == 2
    assert "comes from another refiner than the processor. dtype: 'float32' in the store" in error
    rows = [{"image": f"{number % 3}.png", "caption": f"{number} things"} for number in range(6)]
    (photos / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {"num_visual_queries": 2, "num_grounding_queries": 2, "region_hidden_size": 36}
    options = ["--train_data", photos / "train.jsonl", "--store", store, "--mqformer_config", json.dumps(sizes)]
    options += ["--max_steps", 1, "--per_device_train_batch_size", 2, "--eval_strategy", "no", "--report_to", "none"]
    arguments = ["pretrain", "--config", "smoke", "--output_dir", tmp_path, "--use_cpu", "true", *options]
    assert run(capsys, *arguments)[0] == 0
    assert LyricsProcessor.from_pretrained(tmp_path).refiner_fingerprint is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["refine-dataset", "/no/such/folder", "--out", "OUT", "--model", "MODEL"], "There is no /no/such/folder"),
        (["refine-dataset", "PHOTOS", "--out", "OUT", "--model", "MODEL"], "1 of 4 images failed"),
        (["refine-dataset", "PHOTOS", "--out", "STORE", "--model", "MODEL"], "was begun with something else"),
        (["refine-dataset", "PHOTOS", "--out", "PHOTOS", "--model", "MODEL"], "is neither empty nor a store"),
        (["store", "verify", "PHOTOS"], "manifest.json is missing"),
        (["store", "merge", "STORE", "STORE", "--out", "OUT"], "is there twice"),
        (["store", "merge", "STORE", "--out", "PHOTOS"], "exists and is not an empty folder"),
    ],
)
def test_a_mistake_gets_one_line(store, checkpoint, photos, tmp_path, capsys, arguments, message):
    names = {"PHOTOS": photos, "MODEL": checkpoint, "STORE": store, "OUT": tmp_path / "out"}
    code, out, error = run(capsys, *(names.get(argument, argument) for argument in arguments))
    assert (code, out) == (2, "")
    assert message in error
    lines = [line for line in error.splitlines() if line.startswith(f"lyrics {arguments[0]}: error: ")]
    assert len(lines) == 1
    assert "Traceback" not in error
