"""One rule for paths and URLs, wherever they are in a row."""

import base64
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lyrics.assets import draw_table
from lyrics.datasets_lyrics.conversations import read_conversation
from lyrics.datasets_lyrics.open_data import open_rows, open_source
from lyrics.datasets_lyrics.path_guard import PathGuard, RequestedURL, read_image_value
from lyrics.refinement.storage.picture_hash import read_picture
from lyrics.trainers import LyricsPretrainingCollator

from ..pretraining_parts import build_processor
from .test_webdataset import write_tar


@pytest.fixture
def folder(tmp_path):
    """A folder of data with an image, beside a secret one, and links between them."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for path in (folder / "images" / "a.png", tmp_path / "secret.png"):
        path.write_bytes(b"image")
    (folder / "inside.png").symlink_to(folder / "images" / "a.png")
    (folder / "outside.png").symlink_to(tmp_path / "secret.png")
    (folder / "up").symlink_to(tmp_path)
    return folder


OUTSIDE = ["../secret.png", "images/../../secret.png", "/etc/passwd", "outside.png", "up/secret.png", "{up}/secret.png"]
IN_BLOCKS = {
    "image": lambda path: {"type": "image", "image": path},
    "path": lambda path: {"type": "image", "path": path},
    "url": lambda path: {"type": "image", "url": path},
    "image_url": lambda path: {"type": "image", "image_url": path},
    "OpenAI's": lambda path: {"type": "image_url", "image_url": {"url": path}},
    "undecoded": lambda path: {"type": "image", "image": {"bytes": None, "path": path}},
}
ROWS = {
    "image": lambda path: {"image": path},
    "images": lambda path: {"images": ["images/a.png", path]},
    "undecoded": lambda path: {"image": {"bytes": None, "path": path}},
    "undecoded list": lambda path: {"images": [{"bytes": None, "path": path}]},
    **{
        f"{column}, {name}": lambda path, column=column, block=block: {
            column: [{"role": "user", "content": [block(path), {"type": "text", "text": "?"}]}]
        }
        for column in ("messages", "prompt", "chosen")
        for name, block in IN_BLOCKS.items()
    },
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_path_is_relative_to_the_root_wherever_it_is(folder, row):
    guard = PathGuard.below(folder)
    image = str(folder / "images" / "a.png")
    for path in ("images/a.png", "inside.png", "images/../images/a.png", image):
        assert guard.check_row(row(path)) == guard.check_row(row(image))
        assert image in str(guard.check_row(row(path)))


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_path_that_leaves_the_root_is_refused_wherever_it_is(folder, row, path):
    """By `..`, as an absolute path, or through a link."""
    path = path.format(up=folder / "up")
    with pytest.raises(ValueError, match=f"'{path}' lies outside {folder}"):
        PathGuard.below(folder).check_row(row(path))
    PathGuard.below(folder, Path("/")).check_row(row(path))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_urls_are_fetched_only_when_asked(folder, row):
    for url in ("http://x.org/a.png", "HTTPS://x.org/a.png"):
        with pytest.raises(ValueError, match="is a URL; images are not fetched"):
            PathGuard.below(folder).check_row(row(url))
        assert url in str(PathGuard.below(folder, fetch_urls=True).check_row(row(url)))
    for url in ("s3://x/a.png", "file:///etc/passwd", "hf://datasets/x/y.png"):
        with pytest.raises(ValueError, match="is a URL"):
            PathGuard.below(folder, fetch_urls=True).check_row(row(url))
    assert "data:image/png;base64,aaaa" in str(PathGuard.below(folder).check_row(row("data:image/png;base64,aaaa")))


def test_what_is_no_path_is_left_alone(folder):
    """Text, boxes, features, and mappings that are no image block."""
    row = {
        "caption": "../secret.png",
        "meta": {"path": "../secret.png", "url": "http://x.org"},
        "messages": [{"role": "user", "content": [{"type": "text", "text": "../x", "path": None}]}],
        "boxes": [{"type": "box", "box": [0.1, 0.2, 0.3, 0.4], "image": 0}],
        "visual_objects": {"boxes": [[0.1, 0.2, 0.3, 0.4]], "labels": ["cup"]},
        "image": {"bytes": b"image", "path": "../name-only.png"},
    }
    assert PathGuard.below(folder).check_row(row) == row | {"image": b"image"}
    assert PathGuard.below(folder).check_row({"image": "", "images": None}) == {"image": None, "images": None}


def test_values_of_an_image_column(folder):
    guard = PathGuard.below(folder)
    assert read_image_value("images/a.png", guard) == (folder / "images" / "a.png", None)
    assert read_image_value({"bytes": b"x", "path": "../y"}, guard) == (b"x", None)
    assert read_image_value("data:,x", guard) == ("data:,x", None)
    assert read_image_value("", guard)[1] == "There is no image."
    assert "lies outside" in read_image_value("../secret.png", guard)[1]
    assert read_image_value("../secret.png", PathGuard()) == (Path("../secret.png"), None), "the user's own data"


@pytest.mark.parametrize("block", IN_BLOCKS.values(), ids=IN_BLOCKS)
@pytest.mark.parametrize("streaming", [False, True])
def test_paths_in_message_blocks_of_a_file(folder, block, streaming):
    """They are counted, relative to the file, and as safe as a path in the column `image`."""
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}
    rows = [
        {"messages": [{"role": "user", "content": [block(path), {"type": "text", "text": "?"}]}, answer]}
        for path in ("images/a.png", "outside.png")
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    opened = open_rows(folder / "rows.jsonl", streaming=streaming)
    good, bad = [row for _, row in opened.read(0, 0)] if streaming else (opened[0], None)
    assert read_conversation(good).pictures == [str(folder / "images" / "a.png")]
    with pytest.raises(ValueError, match=r"'outside\.png' lies outside"):
        raise bad if streaming else opened[1]


@pytest.mark.parametrize("block", IN_BLOCKS.values(), ids=IN_BLOCKS)
def test_urls_of_rows_that_are_built_in_python_are_refused_too(block):
    """Unless each says that it is asked for; other paths are the user's own."""
    url, answer = "http://x.org/a.png", {"role": "assistant", "content": "Yes."}
    for in_column in (False, True):
        for asked, path in ((False, "/etc/a.png"), (False, url), (True, RequestedURL(url))):
            content = [{"type": "image"} if in_column else block(path), {"type": "text", "text": "?"}]
            row = {"messages": [{"role": "user", "content": content}, answer]} | (
                {"images": [path]} if in_column else {}
            )
            if path == url and not asked:
                with pytest.raises(ValueError, match="is a URL; images are not fetched"):
                    read_conversation(row)
            else:
                assert read_conversation(row).pictures == [path]
    with pytest.raises(ValueError, match="is a URL; images are not fetched"):
        LyricsPretrainingCollator(build_processor()).prepare({"image": url, "caption": "a cup"})


def test_an_image_in_base64_is_counted_and_is_no_path():
    content = [{"type": "image", "base64": base64.b64encode(b"image").decode()}, {"type": "text", "text": "?"}]
    answer = {"role": "assistant", "content": "Yes."}
    conversation = read_conversation({"messages": [{"role": "user", "content": content}, answer]})
    assert conversation.pictures == ["data:;base64,aW1hZ2U="]


def test_paths_in_the_json_of_a_tar_shard_are_refused(folder):
    row = {"messages": [{"role": "user", "content": [{"type": "image", "path": "images/a.png"}]}]}
    path = write_tar(folder / "a.tar", [("0.png", b"x"), ("0.json", json.dumps(row).encode())])
    ((_, error),) = open_rows(path).read(0, 0)
    assert "'images/a.png' has no folder" in str(error)
    ((_, found),) = open_rows(path, image_root=folder).read(0, 0)
    assert found["messages"][0]["content"][0]["path"] == str(folder / "images" / "a.png")
    assert found["image"] == b"x"


def write_rows(folder, *paths):
    (folder / "rows.jsonl").write_text("".join(json.dumps({"image": path}) + "\n" for path in paths))
    return folder / "rows.jsonl"


@pytest.mark.parametrize("path", ["outside.png", "up/secret.png"])
def test_a_link_that_leaves_the_folder_has_one_answer(folder, path):
    """Refused in training and in refinement; with a root that holds its target, taken in both."""
    rows = write_rows(folder, path)
    with pytest.raises(ValueError, match="lies outside"):
        open_rows(rows)[0]
    assert "lies outside" in next(open_source(rows).items(0)).error
    rows = write_rows(folder, str(folder / path))
    secret = folder.parent / "secret.png"
    assert open_rows(rows, image_root=folder.parent)[0]["image"] == str(secret)
    assert next(open_source(rows, root=folder.parent).items(0)).image == secret


def test_a_link_in_a_folder_of_images_has_the_same_answer(folder):
    found = {item.key: item for item in open_source(folder).items(0)}
    assert found["inside.png"].image == folder / "images" / "a.png"
    assert found["outside.png"].image is None
    assert "lies outside" in found["outside.png"].error
    found = {item.key: item for item in open_source(folder, root=folder.parent).items(0)}
    assert found["outside.png"].image == folder.parent / "secret.png"


def test_a_url_that_was_asked_for_is_fetched_in_refinement_too(folder):
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder / "images"))
    draw_table(32, 24).save(folder / "images" / "a.png")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        rows = write_rows(folder, f"http://127.0.0.1:{server.server_port}/a.png")
        (item,) = open_source(rows, fetch_urls=True).items(0)
        assert read_picture(item.image, 10_000).picture.size == (32, 24)
        server.shutdown()
