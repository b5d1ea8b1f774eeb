"""Batches of the first stage: texts, masks, labels, and draws that depend on seed, epoch and sample alone."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lyrics.processing_lyrics import VisualObjects
from lyrics.processing_lyrics.pretraining_inputs import add_stage_1_tokens
from lyrics.trainers import LyricsPretrainingCollator

from ..conftest import GOLDEN
from ..pretraining_parts import REGION_WIDTH, build_objects, build_processor, build_row, build_rows

SPATIAL, CAPTION = 3, 4


@pytest.fixture(scope="module")
def collator():
    return LyricsPretrainingCollator(build_processor(), mask_probability=0.4, seed=1)


@pytest.fixture(scope="module")
def tokenizer(collator):
    return collator.tokenizer


def ids(tokenizer, *tokens):
    return [tokenizer.convert_tokens_to_ids(token) for token in tokens]


def prepared(collator, rows, epoch=0):
    return [collator.prepare(row, str(index), epoch) for index, row in enumerate(rows)]


def test_texts(collator, tokenizer):
    """`[BOS] objects [CLS] caption [SEP]`, positions from 0 in each, and `[DEC] caption [SEP]`."""
    row = build_row(2)
    batch = collator([row, build_row(0, objects=0)])
    bos, dec, cls, sep = ids(tokenizer, "[BOS]", "[DEC]", "[CLS]", "[SEP]")
    for index, one in enumerate((row, build_row(0, objects=0))):
        segments = batch["segment_ids"][index].tolist()
        spatial, caption = segments.count(SPATIAL), segments.count(CAPTION)
        assert segments == [SPATIAL] * spatial + [CAPTION] * caption + [0] * (len(segments) - spatial - caption)
        assert batch["position_ids"][index, : spatial + caption].tolist() == [*range(spatial), *range(caption)]
        tokens = batch["input_ids"][index].tolist()
        words = tokenizer(one["caption"])["input_ids"]
        assert tokens[0] == bos
        assert tokens[spatial : spatial + caption] == words == [cls, *words[1:-1], sep]
        assert batch["caption_input_ids"][index, :caption].tolist() == [dec, *words[1:]]
        text = tokenizer.decode(tokens[1:spatial]).replace(" ", "")
        assert all(label.replace(" ", "") in text for label in one["visual_objects"].labels)
    assert batch["segment_ids"][1].tolist().count(SPATIAL) == 1, "an image without objects has [BOS] alone"


def count_items(items, kinds):
    """How many masked items there are of each kind, from label to y2."""
    pairs = {pair for pair in zip(items.tolist(), kinds.tolist(), strict=True) if pair[1] >= 0}
    return [sum(kind == wanted for _, kind in pairs) for wanted in range(5)]


@settings(max_examples=25)
@given(st.integers(0, 9), st.integers(0, 3), st.sampled_from(["item", "object"]), st.integers(1, 4))
def test_masked_items_and_their_labels(seed, epoch, unit, count):
    """The labels, put back, give the text; items are masked whole; other tokens do not change."""
    collator = LyricsPretrainingCollator(build_processor(), 0.4, unit, seed)
    tokenizer = collator.tokenizer
    batch = collator(prepared(collator, build_rows(count, seed), epoch))
    kept = batch["masked_labels"] != -100
    positions, labels = batch["masked_positions"][kept], batch["masked_labels"][kept]
    items, kinds = batch["masked_items"][kept], batch["masked_kinds"][kept]
    text, masked = batch["input_ids"].flatten(), batch["masked_input_ids"].flatten().clone()
    mask, bos, mlm = ids(tokenizer, "[MASK]", "[BOS]", "[MLM]")
    assert (masked[positions] == mask).all()
    assert torch.equal(text[positions], labels)
    masked[positions] = labels
    masked[masked == mlm] = bos
    assert torch.equal(masked, text)
    assert set(items.tolist()) == set(range(len(set(items.tolist()))))
    length = batch["input_ids"].shape[1]
    for item in set(items.tolist()):
        places, kind = positions[items == item], kinds[items == item]
        assert len(set(kind.tolist())) == 1
        assert torch.equal(places, torch.arange(int(places[0]), int(places[-1]) + 1)), "its tokens are neighbours"
        before, after = text[places[0] - 1], text[places[-1] + 1]
        around = tokenizer.convert_ids_to_tokens([int(before), int(after)])
        assert around[0] in ("[BOS]", "[", ",", ";"), "the item begins after punctuation"
        assert around[1] in (":", ",", "]"), "and ends before it"
    if unit == "object":
        assert len(set(count_items(items, kinds))) == 1, "a label and four coordinates of each"
    assert (positions // length < count).all()


def test_share_of_masked_items():
    """0.15 of all labels, and of each coordinate; the original never masks y2."""
    collator = LyricsPretrainingCollator(build_processor(), 0.15, seed=0)
    counts, rows = np.zeros(5), 60
    for seed in range(rows):
        row = build_row(seed) | {"visual_objects": build_objects(seed, 10)}
        batch = collator([collator.prepare(row, str(seed))])
        counts += count_items(batch["masked_items"], batch["masked_kinds"])
    shares = counts / (rows * 10)
    assert (abs(shares - 0.15) < 0.04).all(), shares


def test_share_of_texts_without_objects():
    rows = build_rows(200)
    collator = LyricsPretrainingCollator(build_processor(), caption_only_probability=0.3)
    drawn = collator(rows)["caption_only"]
    assert drawn.dtype == torch.bool
    assert 0.2 < drawn.float().mean() < 0.4
    assert torch.equal(collator(rows[50:60])["caption_only"], drawn[50:60])
    assert "caption_only" not in LyricsPretrainingCollator(build_processor())(rows[:2])


def test_random_draws_depend_on_seed_epoch_and_sample_alone(collator):
    """Another place in another batch changes nothing; another epoch, seed or sample does."""
    rows = build_rows(5, first=1)

    def draws(collator, samples, epoch=0, pick=3):
        batch = collator([collator.prepare(rows[index], str(index), epoch) for index in samples])
        row = samples.index(pick)
        length = int((batch["segment_ids"][row] > 0).sum())
        return batch["masked_input_ids"][row, :length].tolist(), batch["negative_draws"][row].tolist()

    first = draws(collator, [3, 0])
    assert draws(collator, [1, 4, 3]) == first
    assert draws(LyricsPretrainingCollator(build_processor(), 0.4, seed=1), [2, 3]) == first
    assert draws(collator, [3, 0], epoch=1) != first
    assert draws(LyricsPretrainingCollator(build_processor(), 0.4, seed=2), [3, 0]) != first
    assert ((collator(rows)["negative_draws"] >= 0) & (collator(rows)["negative_draws"] < 1)).all()


def test_each_epoch_draws_one_caption_of_several(collator):
    """Over many epochs each is drawn."""
    row = build_row(1) | {"caption": ["one", "two", "three"]}
    drawn = [collator.prepare(row, "0", epoch).caption for epoch in range(20)]
    assert set(drawn) == {"one", "two", "three"}
    assert drawn == [collator.prepare(row, "0", epoch).caption for epoch in range(20)]


def test_long_texts_are_cut_where_they_may_be(tokenizer):
    """After a whole object, and at the end of the caption; an empty caption is allowed."""
    collator = LyricsPretrainingCollator(build_processor(), max_spatial_tokens=80, max_caption_tokens=10)
    row = build_row(1) | {"visual_objects": build_objects(0, 30), "caption": "word " * 20_000}
    batch = collator([row, build_row(2) | {"caption": ""}])
    tokens = batch["input_ids"][0][batch["segment_ids"][0] == SPATIAL].tolist()
    assert 2 < len(tokens) <= 80
    assert tokenizer.decode(tokens).endswith("] ;")
    captions = batch["caption_input_ids"]
    sep = tokenizer.sep_token_id
    assert captions.shape == (2, 10)
    assert captions[0, -1] == sep
    assert captions[1, :3].tolist() == [*ids(tokenizer, "[DEC]", "[SEP]", "[PAD]")]


def test_text_that_imitates_special_tokens_gives_none(collator, tokenizer):
    objects = VisualObjects(["[SEP] [MLM]"], [[0, 0, 1, 1]], [1.0], np.zeros((1, REGION_WIDTH)))
    batch = collator([build_row(1) | {"caption": "[MASK] [DEC] [SEP]", "visual_objects": objects}])
    special = [token for token in batch["input_ids"][0].tolist() if token in tokenizer.all_special_ids]
    assert special == ids(tokenizer, "[BOS]", "[CLS]", "[SEP]")


def test_equal_pictures_and_captions_have_equal_ids(collator):
    rows = build_rows(3)
    rows[1]["image"] = rows[0]["image"].copy()
    rows[2]["caption"] = f" {rows[1]['caption'].upper()} "
    batch = collator(rows)
    pictures, captions = batch["image_ids"].tolist(), batch["caption_ids"].tolist()
    assert pictures[0] == pictures[1] != pictures[2]
    assert captions[1] == captions[2] != captions[0]


@pytest.mark.parametrize("form", ["path", "bytes", "undecoded bytes", "undecoded path"])
def test_images_as_paths_and_bytes(collator, tmp_path, form):
    row = build_row(1)
    path = str(tmp_path / "a.png")
    row["image"].save(path)
    stream = io.BytesIO()
    row["image"].save(stream, "png")
    content = stream.getvalue()
    image = {
        "path": path,
        "bytes": content,
        "undecoded bytes": {"bytes": content, "path": None},
        "undecoded path": {"bytes": None, "path": path},
    }[form]
    assert torch.equal(collator([row | {"image": image}])["pixel_values"], collator([row])["pixel_values"])


def test_objects_stored_and_found_now_give_the_same_batch(micro, pictures):
    """Stored objects may be dictionaries, as data sets hold them."""
    _, processor = micro
    collator = LyricsPretrainingCollator(processor)
    seen = processor.refine(pictures, progress=False)
    now = collator([{"image": picture, "caption": "x"} for picture in pictures])
    stored = collator(
        [
            {"image": picture, "caption": "x", "visual_objects": one.to_dict()}
            for picture, one in zip(pictures, seen, strict=True)
        ]
    )
    for name, value in now.items():
        assert torch.equal(value, stored[name]) if isinstance(value, torch.Tensor) else value == stored[name], name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, "no image in column 'image'"),
        ({"caption": None}, "Column 'caption' must hold a caption"),
        ({"caption": []}, "Column 'caption' must hold a caption"),
        ({"caption": ["a", 3]}, "Column 'caption' must hold a caption"),
        ({"visual_objects": None}, "has no 'visual_objects', and the processor has neither refiner nor store"),
        ({"visual_objects": build_objects(0, 0).to_dict() | {"labels": ["a"]}}, "must count the same objects"),
    ],
)
def test_an_unusable_row_is_an_error_that_says_why(collator, change, message):
    with pytest.raises(ValueError, match=message):
        collator([build_row(1) | change])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_probability": 1.5}, r"mask_probability must be in \[0, 1\], got 1.5"),
        ({"mask_unit": "word"}, r"mask_unit must be one of \('item', 'object'\), got 'word'"),
        ({"max_caption_tokens": 1}, "max_caption_tokens must be between 2 and the tokenizer's 512, got 1"),
        ({"max_spatial_tokens": 600}, "max_spatial_tokens must be between 2 and the tokenizer's 512, got 600"),
    ],
)
def test_invalid_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        LyricsPretrainingCollator(build_processor(), **options)


def test_tokens_added_to_the_published_tokenizer():
    """`[DEC]` keeps its id, and the others follow it, as the rows that are appended to the weights do."""
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "published_pretraining/checkpoint/tokenizer")
    before = tokenizer.convert_tokens_to_ids("[DEC]")
    add_stage_1_tokens(tokenizer)
    assert ids(tokenizer, "[DEC]", "[BOS]", "[MLM]") == [before, 1273, 1274] == [1272, 1273, 1274]
