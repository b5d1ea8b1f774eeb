"""Sources of images for refinement: stable, unique keys, in shards that are known before anything is read."""

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value

from lyrics import SCENE_PICTURE
from lyrics.assets import draw_table
from lyrics.datasets_lyrics.hf_datasets import DatasetImages, DatasetPlace, StreamImages
from lyrics.datasets_lyrics.open_data import open_rows
from lyrics.refinement import DuplicateKeyError, open_source

from .test_webdataset import write_tar


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """A cache of `datasets` for each test."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def png(width=20):
    file = io.BytesIO()
    draw_table(width, 20).save(file, "png")
    return file.getvalue()


def listed(source):
    """Keys by shard; a source that went to another process gives the same, and says that it is the same."""
    again = pickle.loads(pickle.dumps(source))
    assert again.describe() == source.describe()
    keys = [[item.key for item in source.items(shard)] for shard in range(source.shards)]
    assert [[item.key for item in again.items(shard)] for shard in range(again.shards)] == keys
    flat = [key for shard in keys for key in shard]
    assert len(set(flat)) == len(flat)
    return keys


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---------------------------------------------------------------------------------------------------- folders


def test_folder(photos):
    source = open_source(photos, shard_size=5)
    keys = ["a0.png", "a1.png", "a2.png", "broken.jpg", "sub/b0.PNG", "sub/b1.PNG", "sub/b2.PNG"]
    assert listed(source) == [keys[:5], [*keys[5:], "sub/deep/日本 c.jpg"]]
    assert (source.total, source.shards) == (8, 2)
    assert next(source.items(1)).image == photos / "sub" / "b1.PNG"
    limited = open_source(str(photos), shard_size=2, limit=3)
    assert listed(limited) == [["a0.png", "a1.png"], ["a2.png"]]
    assert limited.describe() != source.describe()


def test_names_that_are_not_utf8(tmp_path):
    (tmp_path / "bad\udcff.png").write_bytes(png())
    assert listed(open_source(tmp_path)) == [["bad\\udcff.png"]]


def test_folders_without_pictures(tmp_path):
    with pytest.raises(ValueError, match="There is no image in"):
        open_source(tmp_path)
    write_tar(tmp_path / "a.tar", [])
    with pytest.raises(ValueError, match=r"give .*/\*\.tar in quotes"):
        open_source(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"There is no .*/none/at/all"):
        open_source(tmp_path / "none" / "at" / "all")


# ---------------------------------------------------------------------------------------------------- tar shards


@pytest.fixture
def tars(tmp_path):
    """Two folders with two tar shards of three samples each."""
    for part in range(2):
        (tmp_path / f"part-{part}").mkdir()
        for number in range(2):
            files = [(f"{index}.{kind}", b"x") for index in range(3) for kind in ("txt", "png")]
            write_tar(tmp_path / f"part-{part}" / f"{number:03}.tar", files)
    return tmp_path


def test_tar_shards(tars):
    """A shard for each; keys are unique below the part of the pattern that names one folder."""
    source = open_source(f"{tars}/part-*/{{000..001}}.tar")
    assert listed(source) == [
        [f"{name}/{index}" for index in range(3)] for name in ("part-0/000", "part-1/000", "part-0/001", "part-1/001")
    ]
    assert source.total is None
    assert source.estimate_total() == 12
    assert listed(open_source(f"{tars}/part-0/001.tar")) == [["001/0", "001/1", "001/2"]]
    assert listed(open_source(f"file://{tars}/part-0/*.tar"))[1] == ["001/0", "001/1", "001/2"]
    assert next(source.items(0)).image == b"x"


@pytest.mark.parametrize(("limit", "expected"), [(2, [2]), (3, [3]), (4, [3, 1]), (100, [3, 3, 3, 3])])
def test_limited_tar_shards(tars, limit, expected):
    source = open_source(f"{tars}/part-*/*.tar", limit=limit)
    assert [len(shard) for shard in listed(source)] == expected
    assert source.total == sum(expected)


def test_damaged_tar_shards(tars):
    """The error of a sample or a shard takes its place, and the other samples are read."""
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    files = [("0.png", b"x"), ("1.txt", b"x"), (link, b""), ("0.png", b"y"), ("2.png", b"z"), ("3.png", bytes(9999))]
    path = write_tar(tars / "a.tar", files)
    path.write_bytes(path.read_bytes()[:6000])
    items = list(open_source(str(path)).items(0))
    assert [(item.key, item.image) for item in items if item.error is None] == [("a/0", b"x"), ("a/2", b"z")]
    reasons = [(item.key, item.error.split(": ", 1)[1]) for item in items if item.error is not None]
    assert [key for key, _ in reasons] == ["a/1", "a/link", "a/0", "a"]
    for (_, reason), words in zip(reasons, ["has no file", "is a link", "is there twice", "is cut"], strict=True):
        assert words in reason


def test_the_picture_of_a_sample_can_be_named(tars):
    path = write_tar(tars / "a.tar", [("0.png", b"mask"), ("0.photo", b"picture")])
    assert next(open_source(str(path), image="photo").items(0)).image == b"picture"


# ---------------------------------------------------------------------------------------------------- data sets


def test_text_alone_among_lists_of_images(tmp_path):
    rows = [{"images": ["a.png", "b.png"]}, {"images": None}, {"images": []}, {"images": ["c.png"]}]
    source = open_source(write_jsonl(tmp_path / "rows.jsonl", rows), image="images")
    assert [item.image.name for item in source.items(0)] == ["a.png", "b.png", "c.png"]
    rows = Dataset.from_list([{"image": None, "id": "x"}, {"image": "a.png", "id": "y"}])
    assert [item.key for item in open_source(rows, image="image", key="id").items(0)] == ["y"]


def test_cells_of_a_table_stay_as_they_are_written(tmp_path):
    (tmp_path / "rows.csv").write_text(
        "image,prompt,completion,expected_count\n007,How many?,3,3\n8,What?,None,\n,Hi,NA,5\n"
    )
    expected = [("007", "3", 3.0), ("8", "None", None), (None, "NA", 5.0)]
    for streaming in (False, True):
        rows = DatasetPlace(str(tmp_path / "rows.csv"), streaming=streaming).load()
        assert [(row["image"], row["completion"], row["expected_count"]) for row in rows] == expected


def test_a_split_that_was_not_saved_is_told(tmp_path):
    rows = Dataset.from_list([{"image": "a.png"}] * 4)
    rows.train_test_split(0.5).save_to_disk(tmp_path / "saved")
    assert len(DatasetPlace(str(tmp_path / "saved"), split="test").load()) == 2
    with pytest.raises(ValueError, match=r"has no split 'validation'; it has 'train', 'test'"):
        DatasetPlace(str(tmp_path / "saved"), split="validation").load()
    (tmp_path / "images").mkdir()
    shutil.copy(SCENE_PICTURE, tmp_path / "images")
    with pytest.raises(ValueError, match=r"Should be one of \['train'\]. Name one of them: split, or .*--eval_split"):
        open_rows(str(tmp_path / "images"), split="validation")


def test_json_lines_name_pictures(tmp_path):
    """The path is the key, and a path that comes again is the same image; relative ones begin beside the file.

    Rows of text alone have no image to refine.
    """
    rows = [{"image": name, "text": f"caption {row}"} for row, name in enumerate("abcabd")]
    more = [{"image": None}, {"image": ""}, {"image": None}, {"image": "https://x.org/a.png"}]
    path = write_jsonl(tmp_path / "captions.jsonl", [*rows, *more])
    source = open_source(path, shard_size=3)
    assert listed(source) == [["a", "b", "c"], ["d", "", "https://x.org/a.png"]]
    items = [item for shard in range(2) for item in source.items(shard)]
    assert items[0].image == tmp_path / "a"
    assert [item.error for item in items[:4]] == [None] * 4
    assert items[4].error == "There is no image."
    assert "is a URL; images are not fetched" in items[5].error
    assert next(open_source(path, root="/data").items(0)).image == Path("/data/a")
    rows = [{"image": "../a.png"}, {"image": "/etc/passwd"}, {"image": f"{tmp_path}/x/../b.png"}]
    outside = list(open_source(write_jsonl(tmp_path / "paths.jsonl", rows)).items(0))
    for item, name in zip(outside, ("../a.png", "/etc/passwd"), strict=False):
        assert f"{name!r} lies outside {tmp_path}" in item.error
    assert [item.error for item in outside[2:]] == [None]
    assert listed(open_source(path, limit=2)) == [["a", "b"]]


def test_keys_of_a_column(tmp_path):
    rows = [{"id": number, "file": f"{number % 2}.png"} for number in range(4)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert listed(open_source(path, image="file", key="id")) == [["0", "1", "2", "3"]]
    path = write_jsonl(tmp_path / "b.jsonl", [*rows, {"id": 1, "file": "x"}])
    with pytest.raises(DuplicateKeyError, match="Key '1' is there twice: rows 1 and 4"):
        open_source(path, image="file", key="id")
    with pytest.raises(ValueError, match="no column 'name'; the columns are 'id', 'file'"):
        open_source(path, image="file", key="name")
    with pytest.raises(ValueError, match="Name the column with the images; the columns are 'id', 'file'"):
        open_source(path)


def test_json_that_is_damaged(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image": "a"}\n{"image": \n')
    with pytest.raises(ValueError, match=r"a\.jsonl cannot be read: line 2 is no JSON"):
        open_source(tmp_path / "a.jsonl")


def test_a_broken_line_of_a_stream_is_named(tmp_path):
    """With its file and its number, as training reads it and as refinement does."""
    good = "".join(f'{{"image": "{number}.png"}}\n' for number in range(3))
    (tmp_path / "a.jsonl").write_text(good)
    (tmp_path / "b.jsonl").write_text(good + '{"image": \n')
    message = r"b\.jsonl cannot be read: line 4 is no JSON"
    with pytest.raises(ValueError, match=message):
        list(open_rows(tmp_path / "*.jsonl", streaming=True))
    source = open_source(tmp_path / "*.jsonl", streaming=True)
    assert [item.key for item in source.items(0)] == [f"000000-{row:09}" for row in range(3)]
    with pytest.raises(ValueError, match=message):
        list(source.items(1))
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "b.jsonl", streaming=True)
    (tmp_path / "c.json").write_text('[{"image": "a"},\n{"image": ]')
    with pytest.raises(ValueError, match=r"c\.json cannot be read: line 1 is no JSON: .* line 2"):
        list(open_rows(tmp_path / "c.json", streaming=True))


@pytest.fixture
def table():
    """A data set that holds its images, with a column of lists of images."""
    rows = {
        "image": [{"bytes": png(20 + row), "path": None} for row in range(5)],
        "many": [[{"bytes": png(30), "path": None}] * count for count in (1, 2, 0, 1, 1)],
        "name": [f"name {row}" for row in range(5)],
    }
    return Dataset.from_dict(rows, Features({"image": Image(), "many": List(Image()), "name": Value("string")}))


def test_parquet_holds_pictures(table, tmp_path):
    table.to_parquet(tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet", shard_size=4)
    assert listed(source) == [["0", "1", "2", "3"], ["4"]]
    assert [item.image for item in source.items(1)] == [png(24)]
    assert listed(open_source(tmp_path / "a.parquet", key="name", limit=1)) == [["name 0"]]
    several = open_source(tmp_path / "a.parquet", image="many", key="name")
    assert listed(several) == [["name 0", "name 1#0", "name 1#1", "name 3", "name 4"]]
    other = table.select([1, 0, 2, 3, 4])
    assert DatasetImages(other, 4).describe() != source.describe(), "without names, images tell data sets apart"


def test_data_sets_on_disk_and_in_memory(table, tmp_path):
    table.save_to_disk(tmp_path / "one")
    DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "two")
    expected = ["0", "1", "2", "3", "4"]
    for source in (tmp_path / "one", tmp_path / "two", table):
        assert listed(open_source(source)) == [expected]
    assert listed(open_source(tmp_path / "two", split="test")) == [["0"]]


def test_streams(table, tmp_path):
    """A shard for each file; a limit makes one."""
    for number in range(2):
        table.to_parquet(tmp_path / f"{number}.parquet")
    source = open_source(tmp_path / "*.parquet", streaming=True)
    assert listed(source) == [[f"{file:06}-{row:09}" for row in range(5)] for file in range(2)]
    assert next(source.items(1)).image == png(20)
    assert listed(open_source(tmp_path / "*.parquet", streaming=True, key="name", limit=3)) == [
        ["name 0", "name 1", "name 2"]
    ]


def test_a_stream_is_described_without_its_folder(table, tmp_path):
    """It is the same stream elsewhere, and another one with other files."""
    for folder in "xyz":
        (tmp_path / folder).mkdir()
        (table if folder != "z" else table.select([0])).to_parquet(tmp_path / folder / "a.parquet")
    x, y, z = (open_source(tmp_path / folder / "a.parquet", streaming=True).describe() for folder in "xyz")
    assert x == y != z
    assert str(tmp_path) not in json.dumps(x)


def test_a_data_set_on_the_hub_is_loaded_by_its_id(table, tmp_path):
    """A folder in the Hub's layout stands for one."""
    (tmp_path / "data").mkdir()
    table.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    place = DatasetPlace(str(tmp_path))
    assert listed(DatasetImages(place, 3)) == [["0", "1", "2"], ["3", "4"]]
    assert listed(StreamImages(DatasetPlace(str(tmp_path), streaming=True))) == [
        [f"000000-{row:09}" for row in range(5)]
    ]


# ---------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_size": 0}, "shard_size must be at least 1, got 0"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"key": "id"}, "has no columns, so that key='id' means nothing"),
        ({"image": "file"}, "has no columns, so that image='file' means nothing"),
    ],
)
def test_options_that_mean_nothing(photos, options, message):
    with pytest.raises(ValueError, match=message):
        open_source(photos, **options)
