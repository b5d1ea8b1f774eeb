"""`filter_pairs`: counts by reason, duplicates over shards, the same result with any number of workers, resumption."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from lyrics.datasets_lyrics.pair_filter import run as run_module
from lyrics.datasets_lyrics.pair_filter.rules import FilterRules
from lyrics.datasets_lyrics.pair_filter.run import filter_pairs
from lyrics.datasets_lyrics.webdataset import read_shard
from lyrics_cli.main import main

RULES = FilterRules(min_side=64, min_words=2)


def picture(seed, size=(96, 96)):
    """A JPEG of soft spots of color, which differ from seed to seed."""
    file = io.BytesIO()
    spots = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), np.uint8)
    Image.fromarray(spots).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path):
    """Two shards; their fifteen samples are good, bad in every way, or copies of others."""
    folder = tmp_path / "in"
    folder.mkdir()
    first = [
        ("a.jpg", picture(0)),
        ("a.txt", b"a red circle"),
        ("b.jpg", picture(1)),
        ("b.json", json.dumps({"caption": "a blue square"}).encode()),
        ("c.jpg", picture(2)),
        ("c.txt", b"word"),
        ("d.jpg", picture(3, (32, 90))),
        ("d.txt", b"a small image"),
        ("e.jpg", picture(4, (400, 90))),
        ("e.txt", b"a narrow image"),
        ("f.jpg", b"no image at all"),
        ("f.txt", b"a broken image"),
        ("g.txt", b"a caption alone"),
        ("h.jpg", picture(5)),
        ("i.jpg", picture(6)),
        ("i.txt", b"IMG 0001.jpg https://x.org"),
        ("../j.jpg", picture(7)),
        ("../j.txt", b"out of the archive"),
    ]
    second = [("k.jpg", picture(0)), ("k.txt", b"the red circle again"), ("l.jpg", picture(8)), ("l.txt", b"a new one")]
    write_tar(folder / "x-0.tar", first)
    write_tar(folder / "x-1.tar", second)
    return str(folder / "x-{0..1}.tar")


DROPPED = {
    "caption too short": 1,
    "image too small": 1,
    "image too long and narrow": 1,
    "unreadable image": 1,
    "no image": 1,
    "no caption": 1,
    "noise: URL": 1,
    "damaged sample": 1,
    "duplicate image": 1,
}


def contents(out):
    return {(path.name, sample.key): sample.files for path in sorted(out.glob("*.tar")) for sample in read_shard(path)}


def test_what_is_kept_and_why_the_rest_is_not(shards, tmp_path):
    report = filter_pairs(shards, tmp_path / "out", RULES)
    assert report.dropped == DROPPED
    assert (report.pairs, report.kept, report.shards) == (12, 3, 2)
    kept = contents(tmp_path / "out")
    assert list(kept) == [("x-0.tar", "a"), ("x-0.tar", "b"), ("x-1.tar", "l")]
    assert kept["x-0.tar", "a"] == {"jpg": picture(0), "txt": b"a red circle"}
    assert json.loads((tmp_path / "out/report.json").read_text())["dropped"] == DROPPED


def files_of(out):
    return {name: (out / name).read_bytes() for name in ("x-0.tar", "x-1.tar", "report.json")}


def test_hashes_in_parts_change_nothing(shards, tmp_path, monkeypatch):
    filter_pairs(shards, tmp_path / "whole", RULES)
    monkeypatch.setattr(run_module, "HASHES_AT_ONCE", 1)  # every hash is a part of its own
    filter_pairs(shards, tmp_path / "parts", RULES)
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_workers_change_nothing(shards, tmp_path):
    filter_pairs(shards, tmp_path / "one", RULES)
    filter_pairs(shards, tmp_path / "two", RULES, workers=2)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


def test_an_interrupted_run_resumes(shards, tmp_path, monkeypatch):
    out = tmp_path / "out"
    filter_pairs(shards, tmp_path / "whole", RULES)
    real = run_module.drop_duplicates
    monkeypatch.setattr(run_module, "drop_duplicates", lambda task: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        filter_pairs(shards, out, RULES)
    monkeypatch.setattr(run_module, "drop_duplicates", real)
    decided = {path: path.stat().st_mtime_ns for path in (out / "decisions").glob("x-1.npz")}
    filter_pairs(shards, out, RULES, copy=False)
    assert not list(out.glob("*.tar"))
    report = filter_pairs(shards, out, RULES)
    assert report.dropped == DROPPED
    assert contents(out) == contents(tmp_path / "whole")
    assert len(decided) == 1
    with pytest.raises(ValueError, match="begun with other rules"):
        filter_pairs(shards, out, FilterRules())


def test_a_cut_shard_is_counted(shards, tmp_path):
    path = tmp_path / "in/x-1.tar"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"l.txt")])
    report = filter_pairs(shards, tmp_path / "out", RULES)
    assert report.dropped["damaged shard"] == 1


def test_the_command(shards, tmp_path, capsys):
    out = str(tmp_path / "out")
    arguments = ["data", "filter", shards, "--out", out, "--min-side", "64", "--min-words", "2"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dropped"] == DROPPED
    assert main(arguments) == 0
    assert "Kept 3 of 12 pairs in 2 shards" in capsys.readouterr().out
    assert main([*arguments, "--language", "xx"]) == 2
    assert "The language 'xx' is not known" in capsys.readouterr().err
    assert main(["data", "filter", "none.tar", "--out", out]) == 2


@pytest.mark.slow
def test_ray_gives_the_same(shards, tmp_path):
    ray = pytest.importorskip("ray")
    filter_pairs(shards, tmp_path / "one", RULES)
    try:
        filter_pairs(shards, tmp_path / "ray", RULES, workers=2, engine="ray")
    finally:
        ray.shutdown()  # other tests of this process begin a Ray of their own
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")
    assert np.load(tmp_path / "ray/decisions/x-0.npz")["kept"].tolist() == [0, 1]
