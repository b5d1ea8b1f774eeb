"""Search in images: what is found, an index that grows, survives a kill, and belongs to one model."""

import multiprocessing
import os

import numpy as np
import pytest
import torch
from PIL import Image

from lyrics.datasets_lyrics.open_data import open_source
from lyrics.modeling_lyrics import LyricsForPreTraining
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.refinement import RefinementStore, refine_dataset
from lyrics.refinement.engines import task
from lyrics.retrieval import (
    EmbeddingIndexError,
    PairEncoder,
    PictureSearch,
    draw_contact_sheet,
    evaluate_retrieval,
    index,
)
from lyrics.retrieval import nearest as nearest_rows
from lyrics.retrieval.index import list_parts, merge_parts
from lyrics.retrieval.nearest import EmbeddingRows, nearest
from lyrics.utils.folder_lock import FolderLock, FolderLockedError

COLORS = ("red", "green", "blue", "white", "black", "gray")


def build_encoder(micro, seed=0, batch_size=1, **settings):
    """A first stage with random weights, made of the parts of the random micro model, with its refiner."""
    model, processor = micro
    torch.manual_seed(seed)
    first = LyricsForPreTraining.from_parts(model.model.vision_model, model.model.mqformer, **settings)
    return PairEncoder(first, processor, batch_size)


@pytest.fixture(scope="module")
def encoder(micro):
    return build_encoder(micro)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number, color in enumerate(COLORS):
        noise = np.random.default_rng(number).integers(0, 90, (40, 56, 3), dtype=np.uint8)
        picture = Image.blend(Image.new("RGB", (56, 40), color), Image.fromarray(noise), 0.4)
        picture.save(folder / ("sub" if number % 2 else ".") / f"{color}.png")
    return folder


def open_search(photos, encoder, index="index"):
    return PictureSearch(open_source(photos, shard_size=4), encoder, photos.parent / index)


def keys(hits):
    return [hit.key for hit in hits]


def test_the_nearest_are_those_of_a_full_comparison_and_ties_keep_their_order():
    vectors = np.random.default_rng(0).standard_normal((1000, 8)).astype(np.float32)
    query = vectors[17]
    assert nearest(vectors, query, 25).tolist() == np.argsort(-(vectors @ query), kind="stable")[:25].tolist()
    assert nearest(np.ones((5, 2), np.float32), np.ones(2, np.float32), 3).tolist() == [0, 1, 2]
    assert nearest(np.zeros((0, 2), np.float32), np.ones(2, np.float32), 3).tolist() == []


def test_many_embeddings_are_searched_in_an_index_that_is_built_once(tmp_path, monkeypatch):
    monkeypatch.setattr(nearest_rows, "EXACT_LIMIT", 1000)
    vectors = np.random.default_rng(0).standard_normal((20_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = EmbeddingRows(tmp_path, vectors)
    found = [rows.nearest(vectors[place], 10) for place in range(50)]
    assert [one[0] for one in found] == list(range(50))
    exact = [nearest(vectors, vectors[place], 10) for place in range(50)]
    assert np.mean([len({*one} & {*other}) for one, other in zip(found, exact, strict=True)]) > 9
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert EmbeddingRows(tmp_path, vectors).nearest(vectors[3], 10).tolist() == found[3].tolist()
    assert file.stat().st_mtime_ns == written
    assert EmbeddingRows(tmp_path, -vectors).nearest(vectors[3], 10)[0] != 3
    assert [one != file for one in tmp_path.iterdir()] == [True], "the index of other embeddings is removed"


def test_a_picture_finds_itself_and_a_text_what_scores_best(photos, encoder):
    search = open_search(photos, encoder)
    assert search.update(progress=False) == len(search) == 6
    for key in ("red.png", "sub/green.png"):
        best, *others = search.by_image(photos / key, top=6)
        assert (best.key, best.match) == (key, None)
        assert best.similarity == pytest.approx(1, abs=1e-3)
        assert [hit.similarity for hit in others] == sorted((hit.similarity for hit in others), reverse=True)
    text = "a red ball"
    plain = search.by_text(text, top=6, rerank=0)
    embedding = encoder.embed_texts([text])[0]
    pictures = {hit.key: search.load(hit.key) for hit in plain}
    expected = {key: float(encoder.embed_images([one])[0] @ embedding) for key, one in pictures.items()}
    assert keys(plain) == sorted(expected, key=lambda key: -expected[key])
    ranked = search.by_text(text, top=6)
    objects = [search.objects(key) for key in pictures]
    logits = dict(zip(pictures, encoder.match(list(pictures.values()), objects, text), strict=True))
    odds = {key: expected[key] / encoder.temperature + logits[key] for key in pictures}
    assert keys(ranked) == sorted(pictures, key=lambda key: -odds[key])
    for hit in ranked:
        assert hit.match == pytest.approx(1 / (1 + np.exp(-logits[hit.key])), abs=1e-3)
    assert keys(search.by_text(text, top=1, rerank=2)) == [max(keys(plain)[:2], key=odds.__getitem__)]


def test_similarities_count_as_much_as_the_training_weighed_them(photos, encoder):
    search, text = open_search(photos, encoder), "a red ball"
    search.update(progress=False)
    hits = search.by_text(text, top=6, rerank=0)
    pictures, objects = [search.load(hit.key) for hit in hits], [search.objects(hit.key) for hit in hits]
    for weight in encoder.model.matching.parameters():  # a random head is sure of nothing
        weight.data.mul_(2**10)
    logits = encoder.match(pictures, objects, text)
    temperature = encoder.model.contrastive.temperature
    kept, orders = float(temperature.detach()), []
    for value in (0.5, 1e-9):
        temperature.data.fill_(value)
        assert encoder.temperature == pytest.approx(max(value, 0.001))
        odds = {hit.key: hit.similarity / encoder.temperature + logits[place] for place, hit in enumerate(hits)}
        orders.append(keys(search.by_text(text, top=6)))
        assert orders[-1] == sorted(odds, key=lambda key: -odds[key])
    temperature.data.fill_(kept)
    for weight in encoder.model.matching.parameters():
        weight.data.div_(2**10)
    assert orders[0] != orders[1]


def test_the_index_follows_the_folder(photos, encoder):
    open_search(photos, encoder).update(progress=False)
    again = open_search(photos, encoder)
    assert again.update(progress=False) == 0
    (photos / "red.png").unlink()
    Image.new("RGB", (30, 30), "yellow").save(photos / "yellow.png")
    Image.new("RGB", (31, 33), "purple").save(photos / "blue.png")
    (photos / "broken.png").write_bytes(b"no image")
    search = open_search(photos, encoder)
    assert search.update(progress=False) == 2
    assert list(search.failures) == ["broken.png"]
    assert "not in a format" in search.failures["broken.png"]
    found = keys(search.by_image(Image.new("RGB", (31, 33), "purple"), top=10))
    assert found[0] == "blue.png"
    assert sorted(found) == sorted(
        path.relative_to(photos).as_posix() for path in photos.rglob("*.png") if path.name != "broken.png"
    )


def test_an_index_that_cannot_be_written_is_searched_as_it_is(photos, encoder, monkeypatch):
    open_search(photos, encoder).update(progress=False)
    folder = photos.parent / "index"
    (folder / ".a.tmp-1").write_bytes(b"of another process")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # tests may run as root, who may write
    search = open_search(photos, encoder)
    assert (search.update(progress=False), len(search)) == (0, 6)
    assert search.by_image(photos / "red.png", top=1)[0].key == "red.png"
    assert len(search.by_text("a red ball", top=6)) == 6
    Image.new("RGB", (30, 30), "yellow").save(photos / "yellow.png")
    with pytest.raises(EmbeddingIndexError, match=r"index cannot be written, and 'yellow\.png' is new"):
        open_search(photos, encoder).update(progress=False)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_the_index_of_another_folder_is_refused(photos, encoder, tmp_path):
    """One of the same images elsewhere is not: a folder may move."""
    open_search(photos, encoder).update(progress=False)
    (tmp_path / "others").mkdir()
    Image.new("RGB", (30, 30)).save(tmp_path / "others" / "black hole.png")
    with pytest.raises(EmbeddingIndexError, match="made with other images: none of its 6 is in"):
        PictureSearch(open_source(tmp_path / "others", shard_size=4), encoder, tmp_path / "index").update()
    photos.rename(tmp_path / "moved")
    moved = PictureSearch(open_source(tmp_path / "moved", shard_size=4), encoder, tmp_path / "index")
    assert moved.update(progress=False) == 0


@pytest.mark.parametrize(
    ("query", "message"),
    [(None, "must be a text, got None"), (["a"], "must be a text"), (" ", "is empty"), ("红星", "no word that")],
)
def test_a_query_has_a_word(photos, encoder, query, message):
    search = open_search(photos, encoder)
    search.update(progress=False)
    with pytest.raises(ValueError, match=message):
        search.by_text(query)
    with pytest.raises(ValueError, match="top must be an integer"):
        search.by_text("a ring", top=2.5)


def test_a_picture_that_is_gone_is_last_and_does_not_stop_the_search(photos, encoder):
    search = open_search(photos, encoder)
    search.update(progress=False)
    (photos / "red.png").unlink()
    assert keys(search.by_text("a red ball", top=6))[-1] == "red.png"


def test_nothing_to_read_is_an_error(tmp_path, encoder):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="There is no image in"):
        open_search(tmp_path / "photos", encoder)
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"None of the 1 images could be read; a\.png"):
        open_search(tmp_path / "photos", encoder).update(progress=False)


def test_another_model_is_refused_and_the_difference_named(photos, encoder, micro):
    open_search(photos, encoder).update(progress=False)
    with pytest.raises(EmbeddingIndexError, match=r"another model: model\.projection_size was 256 and is 16\."):
        open_search(photos, build_encoder(micro, projection_size=16)).update(progress=False)
    with pytest.raises(EmbeddingIndexError, match=r"another model: model\.weights was \w+"):
        open_search(photos, build_encoder(micro, seed=1)).update(progress=False)
    refiner = micro[1].refiner
    refiner.config.box_threshold, before = 0.123, refiner.config.box_threshold
    try:
        with pytest.raises(EmbeddingIndexError, match=r"refiner\.box_threshold was [\d.]+ and is 0\.123"):
            open_search(photos, encoder).update(progress=False)
    finally:
        refiner.config.box_threshold = before


def test_a_folder_with_other_things_is_not_taken_for_an_index(photos, encoder):
    with pytest.raises(EmbeddingIndexError, match="neither empty nor an index: there is"):
        open_search(photos, encoder, index="photos").update(progress=False)
    search = open_search(photos, encoder)
    search.update(progress=False)
    part = next((photos.parent / "index").glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(EmbeddingIndexError, match=f"{part.name} is damaged"):
        open_search(photos, encoder).update(progress=False)
    part.unlink()
    assert open_search(photos, encoder).update(progress=False) > 0
    (photos.parent / "index" / "index.json").write_text("{")
    with pytest.raises(EmbeddingIndexError, match="no description of an index"):
        open_search(photos, encoder).update(progress=False)


def test_many_files_become_few_and_nothing_else_changes(photos, encoder, monkeypatch):
    monkeypatch.setattr(task, "BATCHES_AT_ONCE", 1)  # one image a file
    first = open_search(photos, encoder)
    first.update(progress=False)
    hits, objects = first.by_text("a red ball", top=6), first.objects("sub/gray.png")
    folder = photos.parent / "index"
    merge_parts(folder, rows=4)
    assert [path.stem for path in list_parts(folder)] == ["part-000003", "part-000004", "part-000005"]
    again = open_search(photos, encoder)
    assert again.update(progress=False) == 0
    assert again.by_text("a red ball", top=6) == hits
    assert again.objects("sub/gray.png") == objects


def test_one_process_at_a_time(photos, encoder):
    (photos.parent / "index").mkdir()
    with FolderLock(photos.parent / "index", "another test"), pytest.raises(FolderLockedError, match="another test"):
        open_search(photos, encoder).update(progress=False)


def test_objects_come_from_a_store_without_a_refiner(photos, encoder, micro, tmp_path, saved):
    refine_dataset(open_source(photos), tmp_path / "store", LyricsProcessor.from_pretrained(saved))
    processor = LyricsProcessor.from_pretrained(saved, refiner=False)
    processor.store = RefinementStore.open(tmp_path / "store")
    search = open_search(photos, PairEncoder(encoder.model, processor), index="from-store")
    assert search.update(progress=False) == 6
    assert search.objects("red.png").labels == processor.store["red.png"].labels
    assert keys(search.by_image(photos / "red.png", top=1)) == ["red.png"]


def test_pictures_that_are_drawn_keep_their_index(tmp_path, encoder):
    def search(word):
        return PictureSearch(open_source(word, shard_size=2), encoder, tmp_path / "drawn")

    first = search("shapes:5")
    assert first.update(progress=False) == 5
    again = search("shapes:5")
    assert again.update(progress=False) == 0
    assert keys(again.by_text("a ball")) == keys(first.by_text("a ball"))
    assert np.array_equal(again.load("3"), first.load("3"))
    with pytest.raises(EmbeddingIndexError, match="other images: pictures was 5 and is 6; word was shapes:5"):
        search("shapes:6").update(progress=False)


def update_and_die(photos, encoder):
    """Index images in this process, which ends in the middle of writing the second part."""
    count, write = 0, index.write_file

    def dies(path, *arguments, **options):
        nonlocal count
        count += "part-" in str(path)
        if count == 2:
            path.with_name(f".{path.name}.tmp-0123456789ab").write_bytes(b"half")
            os._exit(9)
        return write(path, *arguments, **options)

    index.write_file = dies
    open_search(photos, encoder).update(progress=False)


def test_the_index_of_a_killed_process_is_resumed(photos, encoder, monkeypatch):
    monkeypatch.setattr(task, "BATCHES_AT_ONCE", 2)
    process = multiprocessing.get_context("fork").Process(target=update_and_die, args=(photos, encoder))
    process.start()
    process.join()
    assert process.exitcode == 9
    folder = photos.parent / "index"
    assert sorted(path.name for path in folder.glob("part*")) == ["part-000000.parquet"]
    search = open_search(photos, encoder)
    assert search.update(progress=False) == 4
    assert len(search) == 6
    assert not list(folder.glob(".*.tmp-*"))


def test_recall_of_a_data_set(encoder, photos):
    rows = [
        {"image": str(path), "caption": ["a ball", f"number {number}"][: 1 + number % 2]}
        for number, path in enumerate(sorted(photos.rglob("*.png")))
    ]
    result = evaluate_retrieval(encoder, rows, reranked=2)
    assert (result.images, result.texts) == (6, 9)
    assert result.contrast["text_to_image R@10"].value == 100
    assert result.reranked.keys() == result.contrast.keys()
    for bad, message in (({"image": str(photos / "red.png")}, "no captions"), ({"caption": "a"}, "no image")):
        with pytest.raises(ValueError, match=f"Row 0 has {message}"):
            evaluate_retrieval(encoder, [bad])
    with pytest.raises(ValueError, match="There is no row"):
        evaluate_retrieval(encoder, [])


def test_a_sheet_shows_every_picture_with_its_line():
    pictures = [Image.new("RGB", (100, 20 + 30 * number), "red") for number in range(7)]
    sheet = np.asarray(draw_contact_sheet(pictures, [f"{number}. {'long ' * 30}" for number in range(7)], "a title"))
    heights = [min(220, 220 * (20 + 30 * number) / 100) for number in range(7)]
    widths = [220 * min(1, 100 / (20 + 30 * number)) for number in range(7)]
    expected = sum(width * height for width, height in zip(widths, heights, strict=True))
    assert (sheet == (255, 0, 0)).all(axis=2).sum() == pytest.approx(expected, rel=0.02)
    assert (sheet[-20:] < 100).any(), "the line below the last image"


def test_an_encoder_without_objects_is_refused(encoder, saved):
    with pytest.raises(ValueError, match="neither refiner nor store"):
        PairEncoder(encoder.model, LyricsProcessor.from_pretrained(saved, refiner=False))
