"""Columns of visual objects, for every kind of data set."""

import dataclasses
import pickle

import pytest
import torch
from datasets import Dataset, Features, Image, IterableDataset, List, Value
from torch.utils.data import DataLoader

from lyrics.assets import draw_table
from lyrics.refinement import StaleStoreError, StoreError

KEYS = ["a1.png", "sub/b0.PNG", "a0.png"]


@pytest.fixture
def rows(photos):
    return [{"image": str(photos / key), "key": key, "text": f"caption {number}"} for number, key in enumerate(KEYS)]


@pytest.fixture
def table(rows):
    return Dataset.from_list(
        rows, features=Features({"image": Image(), "key": Value("string"), "text": Value("string")})
    )


@pytest.mark.parametrize("key", [None, "key"])
@pytest.mark.parametrize("kind", ["list", "iterator", "table", "stream", "paths"])
def test_every_kind_of_data_set(store, rows, table, kind, key):
    """By pixels and by key; the other columns stay, and images of a table are decoded."""
    datasets = {
        "list": rows,
        "iterator": iter(rows),
        "table": table,
        "stream": table.to_iterable_dataset(),
        "paths": Dataset.from_list(rows),
    }
    attached = store.attach(datasets[kind], key=key)
    assert isinstance(
        attached, type(datasets[kind]) if kind in ("table", "stream", "paths") else torch.utils.data.Dataset
    )
    seen = [attached[index] for index in range(3)] if kind in ("list", "table") else list(attached)
    assert [row["visual_objects"] for row in seen] == [store[name] for name in KEYS]
    assert [row["text"] for row in seen] == [row["text"] for row in rows]
    assert kind not in ("table", "stream") or seen[0]["image"].size == (80, 48)


def test_nothing_is_read_before_a_row_is(own_store, rows):
    from lyrics.refinement import RefinementStore

    attached = RefinementStore.open(own_store).attach(rows, key="key")
    (own_store / "shards" / "00000001.arrow").unlink()
    assert attached[0]["visual_objects"].labels
    with pytest.raises(StoreError, match=r"00000001\.arrow"):
        attached[1]


def test_in_workers_of_a_loader(store, table):
    """Workers receive the store without its rows."""
    attached = store.attach(table, key="key")
    assert len(pickle.dumps(store.attach([], key="key"))) < 2000
    loader = DataLoader(attached, batch_size=2, num_workers=1, collate_fn=list, multiprocessing_context="fork")
    assert [row["visual_objects"] for batch in loader for row in batch] == [store[key] for key in KEYS]


def test_a_transform_stays(store, table):
    """The data set's own transform is applied first."""
    upper = table.with_transform(lambda batch: batch | {"text": [text.upper() for text in batch["text"]]})
    row = store.attach(upper, key="key")[1]
    assert row["text"] == "CAPTION 1"
    assert row["visual_objects"] == store[KEYS[1]]
    with pytest.raises(ValueError, match="format 'numpy': attach the store before"):
        store.attach(table.with_format("numpy"))


def test_streams_can_be_resumed(store, table):
    stream = store.attach(table.to_iterable_dataset(), key="key")
    iterator = iter(stream)
    first = next(iterator)
    state = stream.state_dict()
    again = store.attach(table.to_iterable_dataset(), key="key")
    again.load_state_dict(state)
    rest = list(again)
    assert [row["visual_objects"] for row in [first, *rest]] == [store[key] for key in KEYS]


def test_several_images_in_a_row(store, photos):
    features = Features({"images": List(Image()), "text": Value("string")})
    rows = [{"images": [str(photos / key) for key in keys], "text": ""} for keys in (KEYS[:2], KEYS[2:], [])]
    attached = store.attach(Dataset.from_list(rows, features=features), image="images")
    assert [row["visual_objects"] for row in attached] == [[store[key] for key in KEYS[:2]], [store["a0.png"]], []]


def test_rows_of_text_alone(store, photos):
    rows = [{"image": str(photos / KEYS[0]), "id": KEYS[0]}, {"image": None, "id": "none"}]
    for data in (rows, Dataset.from_list(rows)):
        for key in (None, "id"):
            attached = store.attach(data, image="image", key=key)
            assert [attached[index]["visual_objects"] for index in range(2)] == [store[KEYS[0]], None]


def test_objects_go_into_the_processor(store, table, loaded):
    """The column is an argument of the processor, which then needs no refiner."""
    batch = store.attach(table)[:2]
    text = ["<image> a", "<image> b"]
    given = loaded(images=batch["image"], text=text, visual_objects=batch["visual_objects"], return_tensors="pt")
    assert not loaded.refiner_loaded
    loaded.store = store
    for name, tensor in loaded(images=batch["image"], text=text, return_tensors="pt").items():
        assert torch.equal(tensor, given[name])


def test_stale_images_are_refused(store, photos):
    """Unless keys are trusted (`check=False`)."""
    row = {"image": str(photos / "a1.png"), "key": "a0.png"}
    with pytest.raises(StaleStoreError, match=r"'a0\.png' is stale"):
        store.attach([row], key="key")[0]
    assert store.attach([row], key="key", check=False)[0]["visual_objects"] == store["a0.png"]
    assert store.attach([{"key": "a0.png"}], key="key", check=False)[0]["visual_objects"] == store["a0.png"]


def test_missing_images(store):
    rows = [{"image": draw_table(31, 41), "key": "none"}, {"image": "https://x.org/a.png", "key": "none"}]
    for key, name in ((None, "An image"), ("key", "'none'")):
        with pytest.raises(StoreError, match=f"{name} is not in .*could not be refined: 1 "):
            store.attach(rows, key=key)[0]
        assert store.attach(rows, key=key, missing="none")[0]["visual_objects"] is None
    with pytest.raises(StoreError, match="is a URL; images are not fetched"):
        store.attach(rows)[1]


def test_the_cache_of_datasets_knows_the_store(store, own_store, table):
    """The cache finds a transform by the content of the store."""
    from datasets.fingerprint import Hasher

    from lyrics.refinement import RefinementStore

    attach = store.attach([], key="key").objects.add
    assert Hasher.hash(attach) == Hasher.hash(store.attach([], key="key").objects.add)
    other = RefinementStore.open(own_store)
    other.manifest = dataclasses.replace(other.manifest, files={"failures.jsonl": "other"})
    assert Hasher.hash(other.attach([], key="key").objects.add) != Hasher.hash(attach)
    assert isinstance(store.attach(table.to_iterable_dataset()), IterableDataset)
