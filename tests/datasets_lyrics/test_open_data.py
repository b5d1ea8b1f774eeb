"""The same word is the same data in training and in refinement."""

import io
import json

import datasets
import pytest
from PIL import Image

from lyrics.datasets_lyrics.hf_datasets import DatasetsSource, StreamImages, without_decoding
from lyrics.datasets_lyrics.open_data import kind_of, open_rows, open_source
from lyrics.datasets_lyrics.sources import DrawnImages, FolderImages
from lyrics.datasets_lyrics.webdataset import TarImages, TarSource
from lyrics.trainers.data.datasets import StreamRows

from .test_webdataset import pairs, write_tar


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """A cache of `datasets` for each test."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def png(color="red"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, "png")
    return file.getvalue()


@pytest.fixture
def table():
    """Three rows with images and captions."""
    rows = [{"image": {"bytes": png(), "path": None}, "caption": str(number)} for number in range(3)]
    return datasets.Dataset.from_list(
        rows, features=datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    )


@pytest.fixture
def written(tmp_path, table):
    """A folder with the same three rows as every kind of data."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.png").write_bytes(png())
    lines = "".join(json.dumps({"image": "a.png", "caption": str(number)}) + "\n" for number in range(3))
    for ending in ("jsonl", "ndjson", "JSONL", "json"):
        (folder / f"rows.{ending}").write_text(lines)
    (folder / "rows.csv").write_text("image,caption\n" + "".join(f"a.png,{number}\n" for number in range(3)))
    table.to_parquet(folder / "rows.parquet")
    for number in range(3):
        (folder / f"part-{number}.jsonl").write_text(lines.splitlines(keepends=True)[number])
    table.save_to_disk(folder / "saved")
    datasets.DatasetDict({"train": table}).save_to_disk(folder / "splits")
    return folder


FILES = ["rows.jsonl", "rows.ndjson", "rows.JSONL", "rows.json", "rows.csv", "rows.parquet"]
PATTERNS = ["part-*.jsonl", "part-{0..2}.jsonl", "part-{0,1,2}.jsonl", "part-[012].jsonl"]


@pytest.mark.parametrize("word", [*FILES, *PATTERNS, "saved", "splits"])
def test_a_word_has_the_same_rows_in_training_and_refinement(written, word):
    """Also as a stream."""
    word = str(written / word)
    rows = open_rows(word)
    assert [str(row["caption"]) for row in rows] == ["0", "1", "2"]
    images = [item.image for item in open_source(word, key="caption").items(0)]
    assert [str(row["image"]) for row in rows] == list(map(str, images))
    assert set(map(str, images)) <= {str(written / "a.png"), str(png())}
    stream = open_rows(word, streaming=True)
    assert isinstance(stream, DatasetsSource)
    assert [row["image"] for row in stream] == [row["image"] for row in rows]
    source = open_source(word, key="caption", streaming=True)
    assert isinstance(source, StreamImages)
    assert [item.image for shard in range(source.shards) for item in source.items(shard)] == images


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tgz", "w:gz"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz"), ("A.TAR", "w")]
)
def test_tar_shards_are_known_by_the_same_endings(tmp_path, name, mode):
    write_tar(tmp_path / name, pairs(3), mode)
    for word in (
        tmp_path / name,
        f"file://{tmp_path}/{name}",
        f"{tmp_path}/{{{name},{name}}}"[:-1].split(",")[0] + "}",
    ):
        assert kind_of(str(word)) == "tar"
    rows, images = open_rows(tmp_path / name), open_source(tmp_path / name)
    assert isinstance(rows, TarSource)
    assert isinstance(images, TarImages)
    assert [row["image"] for _, row in rows.read(0, 0)] == [item.image for item in images.items(0)]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("s3://bucket/part-?.tar", "tar"),
        ("https://x.org/a.tar?download=1", "tar"),
        ("shards/{0000..0099}.tar", "tar"),
        ("https://x.org/rows.jsonl?download=1", "files"),
        ("hf://datasets/x/rows.parquet", "files"),
        ("owner/name", "hub"),
        ("name.with.tar.in.it", "hub"),
        ("shapes:3", "drawn"),
        ("pairs:3:1", "drawn"),
    ],
)
def test_what_a_word_is(word, kind):
    assert kind_of(word) == kind


def test_a_folder_is_saved_when_the_library_can_load_it(tmp_path):
    """A folder of images with a stray `dataset_info.json` or `state.json` is a folder of images."""
    (tmp_path / "a.png").write_bytes(png())
    for name in ("dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{}")
        assert kind_of(str(tmp_path)) == "folder"
        (tmp_path / name).unlink()
    (tmp_path / "state.json").touch()
    assert isinstance(open_source(tmp_path), FolderImages)
    assert len(open_rows(tmp_path)) == 1


def test_a_folder_with_metadata(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "caption": "red"}\n')
    (row,) = open_rows(tmp_path)
    assert row == {"image": str(tmp_path / "a.png"), "caption": "red"}
    assert next(open_source(tmp_path).items(0)).image == tmp_path / "a.png"


@pytest.mark.parametrize("word", ["shapes:5", "chats:5", "pairs:5:1"])
def test_drawn_rows_can_be_refined(word):
    rows, source = open_rows(word), open_source(word, shard_size=2, limit=3)
    assert isinstance(source, DrawnImages)
    items = [item for shard in range(source.shards) for item in source.items(shard)]
    assert [item.key for item in items] == ["0", "1", "2"]
    assert [item.image.tobytes() for item in items] == [
        (row.get("image") or row["images"][0]).tobytes() for row in map(rows.__getitem__, range(3))
    ]
    with pytest.raises(ValueError, match=r"'shapes:x' is not shapes:COUNT"):
        open_source("shapes:x")


@pytest.mark.parametrize("open_word", [open_rows, open_source])
@pytest.mark.parametrize(
    ("word", "error", "message"),
    [
        ("none.jsonl", FileNotFoundError, "There is no file .*none.jsonl"),
        ("none-*.csv", FileNotFoundError, r"There is no file .*none-\*\.csv"),
        ("none/at/all", FileNotFoundError, "There is no .*none/at/all"),
        ("notes.txt", ValueError, "notes.txt is a file of an unknown format; known are .jsonl, .ndjson"),
        ("broken.jsonl", ValueError, "broken.jsonl.* cannot be read"),
        ("empty.jsonl", ValueError, "empty.jsonl"),
    ],
)
def test_mistakes_have_the_same_message(tmp_path, open_word, word, error, message):
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "broken.jsonl").write_text('{"image": "a"}\n{"image": \n')
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(error, match=message):
        open_word(tmp_path / word)


def test_files_of_several_folders_need_a_root(tmp_path):
    """Their rows have no one folder to be relative to."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text('{"image": "a.png"}\n')
    for open_word, option in ((open_rows, "image_root"), (open_source, "root")):
        with pytest.raises(ValueError, match="The column 'image' holds paths, not images"):
            open_word(f"{tmp_path}/*/rows.jsonl")
        open_word(f"{tmp_path}/*/rows.jsonl", **{option: tmp_path})


NESTED = {
    "a column": (datasets.Image(), lambda image: image),
    "a list": (datasets.List(datasets.Image()), lambda image: [image]),
    "a large list": (datasets.LargeList(datasets.Image()), lambda image: [image]),
    "a mapping": ({"picture": datasets.Image()}, lambda image: {"picture": image}),
    "lists of mappings": (datasets.List({"image": datasets.Image()}), lambda image: [{"image": image}]),
}


@pytest.mark.parametrize(("feature", "nest"), NESTED.values(), ids=NESTED)
def test_images_in_nested_features_are_not_decoded(feature, nest):
    rows = [
        {"images": nest({"bytes": content, "path": None}), "row": number}
        for number, content in enumerate((png(), b"x"))
    ]
    table = datasets.Dataset.from_list(
        rows, features=datasets.Features({"images": feature, "row": datasets.Value("int64")})
    )
    for dataset in (table, table.to_iterable_dataset(), table.with_transform(lambda batch: batch)):
        assert list(without_decoding(dataset)) == rows
    assert isinstance(table[0]["images"], Image.Image) == (feature == datasets.Image()), "the given one still decodes"


def test_a_bad_image_in_a_list_of_a_stream_is_replaced(tmp_path):
    """TRL's own column: `images`, a list of images."""
    rows = [
        {"images": [{"bytes": content, "path": None}], "row": number} for number, content in enumerate((png(), b"x"))
    ]
    features = datasets.Features({"images": datasets.List(datasets.Image()), "row": datasets.Value("int64")})
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "rows.parquet")

    class Prepared:
        def __init__(self, row, sample, epoch):
            self.row, self.image = sample, Image.open(io.BytesIO(row["images"][0]))

    stream = iter(StreamRows(open_rows(tmp_path / "rows.parquet", streaming=True), Prepared, on_bad_row="replace"))
    assert [next(stream).row for _ in range(3)] == ["shard 0/0"] * 3
