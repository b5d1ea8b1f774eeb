"""`lyrics evaluate retrieval` as a function: words, results per data set, resuming, and another model's results."""

import json

import datasets
import pytest
from PIL import Image

from lyrics.retrieval import PairEncoder, evaluate_tasks, parse_retrieval_words
from lyrics.retrieval.tasks import format_results
from lyrics_cli.evaluate_retrieval import is_retrieval

from ..pretraining_parts import build_model, build_processor


@pytest.fixture(scope="module")
def encoder():
    """A first stage without grounding queries, which needs no refiner."""
    return PairEncoder(build_model(std=0.2, queries=(3, 0)), build_processor())


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Flickr30k with three test images of two captions each, and the cache of its rows."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "flickr30k"
    (folder / "images").mkdir(parents=True)
    images = []
    for number, color in enumerate(("red", "green", "blue")):
        Image.new("RGB", (30, 20), color).save(folder / "images" / f"{number}.jpg")
        sentences = [{"raw": f"A {color} sky."}, {"raw": f"Something {color}."}]
        images.append({"filename": f"{number}.jpg", "split": "test", "imgid": number, "sentences": sentences})
    (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
    return tmp_path / "data"


def test_words(tmp_path):
    assert [task.word for task in parse_retrieval_words(["retrieval"], "data")] == [
        "flickr30k/test:data/flickr30k",
        "coco_karpathy/test:data/coco",
    ]
    (tmp_path / "coco_karpathy").mkdir()  # as `lyrics data list` calls it
    (task,) = parse_retrieval_words(["retrieval/coco"], tmp_path)
    assert task.word == f"coco_karpathy/test:{tmp_path / 'coco_karpathy'}"
    (task,) = parse_retrieval_words(["retrieval/coco:elsewhere", "retrieval/coco:there"])
    assert (task.name, task.word) == ("coco", "coco_karpathy/test:there")
    assert [is_retrieval(word) for word in ("retrieval", "retrieval/coco:x", "vqav2", "retrieval2")] == [
        True,
        True,
        False,
        False,
    ]
    for word, message in (
        ("retrieval/vqav2", "names no data set"),
        ("retrieval:folder", "names no data set"),
        ("retrieval/coco", "Where is coco"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_retrieval_words([word])


def test_results_are_written_and_not_measured_again(encoder, data, tmp_path, monkeypatch):
    tasks = parse_retrieval_words(["retrieval/flickr30k"], data)
    content = evaluate_tasks(encoder, tasks, tmp_path / "out", reranked=2)
    found = content["results"]["flickr30k"]
    assert (found["images"], found["texts"], found["note"]) == (3, 6, "the field reports on 1,000 images")
    assert found["contrast"]["text_to_image R@5"][0] == 100
    text = format_results(content)
    assert "flickr30k: 3 images, 6 captions (the field reports on 1,000 images)" in text
    assert "by the best 2 re-ranked" in text
    results = tmp_path / "out" / "retrieval.json"
    saved, written = json.loads(results.read_text()), results.stat().st_mtime_ns
    again = evaluate_tasks(encoder, tasks, tmp_path / "out", reranked=2)
    assert json.loads(json.dumps(again)) == saved
    assert results.stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="something else: reranked was 2 and is 3"):
        evaluate_tasks(encoder, tasks, tmp_path / "out", reranked=3)
    other = PairEncoder(build_model(std=0.2, seed=1, queries=(3, 0)), encoder.processor)
    with pytest.raises(ValueError, match=r"written with something else: model\.weights was"):
        evaluate_tasks(other, tasks, tmp_path / "out", reranked=2)
    (tmp_path / "out" / "retrieval.json").write_text("{}")
    with pytest.raises(ValueError, match="is damaged"):
        evaluate_tasks(encoder, tasks, tmp_path / "out", reranked=2)


def test_fewer_images(encoder, data, tmp_path):
    tasks = parse_retrieval_words(["retrieval/flickr30k"], data)
    content = evaluate_tasks(encoder, tasks, tmp_path / "out", reranked=0, limit=2)
    found = content["results"]["flickr30k"]
    assert (found["images"], found["texts"], found["reranked"]) == (2, 4, None)


def test_results_of_other_captions_are_refused(encoder, data, tmp_path):
    tasks = parse_retrieval_words(["retrieval/flickr30k"], data)
    evaluate_tasks(encoder, tasks, tmp_path / "out", reranked=0)
    annotations = data / "flickr30k" / "dataset_flickr30k.json"
    annotations.write_text(annotations.read_text().replace("A red sky", "A red sea"))
    with pytest.raises(ValueError, match="has the recall of flickr30k with other captions than those of"):
        evaluate_tasks(encoder, tasks, tmp_path / "out", reranked=0)


def test_a_damaged_image_is_left_out_and_named(encoder, data, tmp_path):
    (data / "flickr30k" / "images" / "1.jpg").write_bytes(b"no image")
    tasks = parse_retrieval_words(["retrieval/flickr30k"], data)
    content = evaluate_tasks(encoder, tasks, tmp_path / "out", reranked=2)
    found = content["results"]["flickr30k"]
    assert (found["images"], found["texts"], len(found["skipped"])) == (2, 4, 1)
    assert "1 more could not be read: row 1: " in format_results(content)
