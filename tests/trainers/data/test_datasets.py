"""Order of rows, streams that resume where they stopped, bad rows that are named or replaced."""

import io
import json
import tarfile
from collections import Counter
from itertools import islice

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lyrics.trainers import BadRowError, DatasetsSource, LyricsPretrainingCollator, TarSource
from lyrics.trainers.data.datasets import MapRows, Position, StreamRows, load_positions, save_positions

from ...pretraining_parts import build_processor, build_row

BAD = "not usable"


class Prepared:
    """A row with its name and epoch, like the collator's `PreparedRow`."""

    def __init__(self, row, sample, epoch):
        if row == BAD:
            raise ValueError("it is bad")
        self.row, self.sample, self.epoch, self.position = row, sample, epoch, None


class Shards:
    """Shards whose rows are (shard, index)."""

    def __init__(self, *sizes, bad=()):
        self.names = [f"shard-{index}" for index in range(len(sizes))]
        self.sizes, self.bad = sizes, bad

    def read(self, shard, start):
        for index in range(start, self.sizes[shard]):
            yield str(index), BAD if (shard, index) in self.bad else (shard, index)


def stream(shards, **options):
    return StreamRows(shards, Prepared, **{"block_size": 4, "seed": 1} | options)


def collate(rows):
    return [(row.sample, row.epoch) for row in rows], rows[-1].position


# ------------------------------------------------------------------------------------------------- map-style


def test_a_bad_row_stops_and_is_named():
    rows = MapRows(["a", BAD, "c"], Prepared)
    assert rows[0].row == "a"
    with pytest.raises(BadRowError, match="Row 1 cannot be used: it is bad") as caught:
        rows[1]
    assert caught.value.row == 1


def test_a_bad_picture_is_named_with_its_file(tmp_path):
    """With its index, file and reason."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    collator = LyricsPretrainingCollator(build_processor())
    rows = MapRows([build_row(1), build_row(2) | {"image": str(bad)}], collator.prepare)
    with pytest.raises(BadRowError, match=r"Row 1 cannot be used: The image '.*bad\.png' is not in a format"):
        rows[1]


def test_bad_rows_are_replaced_by_draw(caplog):
    """By (seed, epoch, row); the batch keeps its size; the warning names the row."""
    content = [BAD if index % 3 == 1 else index for index in range(30)]
    rows = MapRows(content, Prepared, "replace", seed=2)
    batch = [rows[index].row for index in range(30)]
    assert BAD not in batch
    assert all(batch[index] == index for index in range(30) if index % 3 != 1)
    assert batch == [MapRows(content, Prepared, "replace", seed=2)[index].row for index in range(30)]
    assert batch != [MapRows(content, Prepared, "replace", seed=3)[index].row for index in range(30)]
    rows.set_epoch(1)
    assert batch != [rows[index].row for index in range(30)]
    with pytest.raises(BadRowError, match="100 rows drawn in its place"):
        MapRows([BAD] * 3, Prepared, "replace")[0]


def test_workers_see_the_epoch():
    """Also workers that persist from the epoch before."""
    rows = MapRows(list(range(4)), Prepared)
    loader = DataLoader(rows, 2, num_workers=1, persistent_workers=True, collate_fn=collate)
    for epoch in range(2):
        rows.set_epoch(epoch)
        assert {one for batch, _ in loader for _, one in batch} == {epoch}


def test_pictures_of_datasets_are_not_decoded_by_it(tmp_path):
    """So that one that cannot be decoded is a bad row, and does not end the run."""
    (tmp_path / "bad.png").write_bytes(b"no image")
    build_row(0)["image"].save(tmp_path / "good.png")
    table = {"image": [str(tmp_path / name) for name in ("good.png", "bad.png")], "caption": ["a", "b"]}
    dataset = datasets.Dataset.from_dict(table).cast_column("image", datasets.Image())
    collator = LyricsPretrainingCollator(build_processor(), use_objects=False)
    for rows in (MapRows(dataset, collator.prepare), stream(DatasetsSource(dataset.to_iterable_dataset()))):
        if isinstance(rows, StreamRows):
            rows.prepare, rows.on_bad_row = collator.prepare, "replace"
            captions = {row.caption for row in islice(rows, 4)}
        else:
            captions = {rows[0].caption}
            with pytest.raises(BadRowError, match=r"bad\.png"):
                rows[1]
        assert captions == {"a"}


# ------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_every_row_once_in_an_epoch(num_ranks, num_workers):
    """Over all ranks and workers; in another order in each epoch, and in the same order every time."""
    shards, total = Shards(7, 4, 9, 5, 6), 31

    def epochs(seed=1):
        seen, orders = Counter(), {}
        for rank in range(num_ranks):
            rows = stream(shards, rank=rank, num_ranks=num_ranks, seed=seed)
            loader = DataLoader(rows, 1, num_workers=num_workers, collate_fn=collate)
            for batch, position in islice(loader, 4 * total):
                for sample, epoch in batch:
                    seen[sample, epoch] += 1
                    orders.setdefault((epoch, position.stream), []).append(sample)
        return seen, orders

    seen, orders = epochs()
    first = {sample: count for (sample, epoch), count in seen.items() if epoch == 0}
    assert len(first) == total
    assert set(first.values()) == {1}
    assert orders[0, 0] != orders[1, 0][: len(orders[0, 0])]
    assert orders == epochs()[1] != epochs(seed=2)[1]


@settings(max_examples=40)
@given(stop=st.integers(1, 60), batch_size=st.integers(1, 3), block=st.integers(1, 9), bad=st.sets(st.integers(0, 8)))
def test_a_stream_goes_on_where_it_stopped(stop, batch_size, block, bad):
    """At any row of any epoch, without reading again what was used."""
    shards = Shards(7, 4, 9, bad=[(2, index) for index in bad])

    def batches(positions=()):
        rows = stream(shards, block_size=block, on_bad_row="replace")
        rows.go_on(positions, 0)
        return iter(DataLoader(rows, batch_size, collate_fn=collate))

    whole = batches()
    used = [next(whole) for _ in range(stop)]
    again = batches([used[-1][1]])
    assert [next(again) for _ in range(20)] == [next(whole) for _ in range(20)]


@pytest.mark.parametrize("stop", [1, 2, 3, 7])
def test_workers_go_on_in_turn(stop, tmp_path):
    """The next batch comes from the worker whose turn it was."""
    shards = Shards(7, 4, 9, 5)

    def batches(positions=()):
        rows = stream(shards)
        rows.go_on(positions, 2)
        return iter(DataLoader(rows, 2, num_workers=2, collate_fn=collate))

    whole = batches()
    positions = {}
    for _ in range(stop):
        _, position = next(whole)
        positions.pop(position.stream, None)
        positions[position.stream] = position
    save_positions(tmp_path / "stream.json", list(positions.values()), 2)
    again = batches(load_positions(tmp_path / "stream.json", 2))
    assert [next(again) for _ in range(8)] == [next(whole) for _ in range(8)]
    with pytest.raises(ValueError, match="a run with 2 data workers, and this one has 3"):
        load_positions(tmp_path / "stream.json", 3)


def test_what_was_read_is_not_read_again():
    class Watched(Shards):
        def read(self, shard, start):
            reads.append((shard, start))
            return super().read(shard, start)

    reads = []
    rows = stream(Watched(20, 20), block_size=5)
    place = Position(0, epoch=3, shard=1, row=12)
    rows.go_on([place], 0)
    first = next(iter(rows))
    assert len(reads) == 1, "the shard before is not opened"
    assert reads[0][1] == 10, "and this one from the block on"
    assert (first.epoch, first.position.row) == (3, 13)


def test_bad_rows_of_a_stream(caplog):
    shards = Shards(3, 3, bad=[(0, 1)])
    assert all(row.row != BAD for row in islice(stream(shards, on_bad_row="replace"), 20))
    with pytest.raises(BadRowError, match="Row shard-0/1 cannot be used: it is bad"):
        list(islice(stream(shards), 6))
    with pytest.raises(ValueError, match="not a single usable row"):
        next(iter(stream(Shards(2, bad=[(0, 0), (0, 1)]), on_bad_row="replace")))


def test_more_streams_than_shards():
    with pytest.raises(ValueError, match=r"3 shards for 4 streams \(4 processes x 1 data workers\)"):
        next(iter(stream(Shards(1, 1, 1), num_ranks=4)))


# ------------------------------------------------------------------------------------------------- tar shards


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def picture_bytes(seed):
    stream = io.BytesIO()
    build_row(seed)["image"].save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def tars(tmp_path):
    """Two tar shards of three samples each, with images, captions and stored objects."""
    for shard in range(2):
        members = []
        for index in range(3):
            key, seed = f"sample{index}", 10 * shard + index
            objects = build_row(seed)["visual_objects"].to_dict()
            lists = {name: value.tolist() for name, value in objects.items() if hasattr(value, "tolist")}
            row = {"visual_objects": objects | lists}
            members += [(f"{key}.png", picture_bytes(seed)), (f"{key}.txt", f"caption {seed}".encode())]
            members += [(f"{key}.json", json.dumps(row).encode())]
        write_tar(tmp_path / f"shard-{shard:04d}.tar", members)
    return tmp_path


def test_tar_shards(tars):
    """WebDataset: image, caption and further columns make the row that the collator takes."""
    collator = LyricsPretrainingCollator(build_processor())
    rows = StreamRows(TarSource(f"{tars}/shard-{{0000..0001}}.tar"), collator.prepare)
    found = {row.caption: row for row in islice(rows, 6)}
    assert set(found) == {f"caption {seed}" for seed in (0, 1, 2, 10, 11, 12)}
    expected = collator([build_row(11) | {"caption": "caption 11"}])
    batch = collator([found["caption 11"]])
    for name in ("pixel_values", "region_features", "input_ids", "image_ids"):
        assert (batch[name] == expected[name]).all(), name
    assert batch["samples"][0].endswith("shard-0001.tar/sample1")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", b"x")], "sample 'a' has no file .txt or .caption or .json"),
        ([("a.txt", b"x")], "sample 'a' has no file .jpg"),
        ([("good2.png", picture_bytes(1)), ("good2.txt", b"good"), ("good.png", b"")], "sample 'good' is there twice"),
        ([("../a.png", b"x"), ("../a.txt", b"y")], "points out of the archive"),
        ([("a.png", picture_bytes(0)), ("a.json", b"{")], "sample 'a' has a damaged .json"),
        ([("a.png", b"no image"), ("a.txt", b"y")], "is not in a format that can be read"),
    ],
)
def test_damaged_samples_are_named_or_skipped(tmp_path, members, message):
    good = [("good.png", picture_bytes(0)), ("good.txt", b"good")]
    write_tar(tmp_path / "a.tar", good + members)
    collator = LyricsPretrainingCollator(build_processor(), use_objects=False)
    with pytest.raises(BadRowError, match=message):
        list(islice(StreamRows(TarSource(tmp_path / "a.tar"), collator.prepare), 6))
    rows = StreamRows(TarSource(tmp_path / "a.tar"), collator.prepare, "replace")
    assert {row.caption for row in islice(rows, 6)} == {"good"}


def test_a_shard_that_is_cut(tars):
    """What comes before the cut is used; the cut is named."""
    path = tars / "shard-0000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    collator = LyricsPretrainingCollator(build_processor())
    with pytest.raises(BadRowError, match=r"shard-0000\.tar.*is cut or damaged"):
        list(islice(StreamRows(TarSource(path), collator.prepare), 6))


def test_streaming_datasets():
    """Of the `datasets` library: its shards are read one by one."""
    table = {"row": list(range(12))}
    source = DatasetsSource(datasets.Dataset.from_dict(table).to_iterable_dataset(num_shards=3))
    assert len(source.names) == 3
    assert [row["row"] for _, row in source.read(1, 2)] == [6, 7]
    rows = [row.row["row"] for row in islice(stream(source), 12)]
    assert sorted(rows) == list(range(12)) != rows
