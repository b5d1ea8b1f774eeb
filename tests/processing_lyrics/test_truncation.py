"""Prompts cut to a length."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lyrics.assets.random_model import build_text_tokenizer
from lyrics.processing_lyrics import LyricsProcessor

BOX = "[0.1, 0.2, 0.3, 0.4]"
pieces = st.lists(
    st.sampled_from(["<image>", BOX, "a", " ", "日", "\U0001f600", "word ", "<s>", "]", "["]), max_size=12
)


@pytest.fixture(scope="module", params=["right", "left"])
def cutting(request, processor):
    """A processor of its own, without a refiner, that cuts on one side."""
    tokenizer = build_text_tokenizer()
    tokenizer.truncation_side = request.param
    parts = (processor.image_processor, tokenizer, processor.mqformer_tokenizer)
    return LyricsProcessor(*parts, num_query_tokens=3, region_feature_size=36)


@settings(max_examples=150)
@given(text=pieces.map("".join), limit=st.integers(1, 90))
def test_placeholders_boxes_and_characters_stay_whole(cutting, picture, text, limit):
    """What is left is the whole prompt without some text on one side; else both counts are named."""
    images = [picture] * text.count("<image>") or None
    whole = cutting(images=images, text=text)["input_ids"][0]
    kept = 3 * text.count("<image>") + max(text.count("<s>"), 1)
    if kept > limit and len(whole) > limit:
        with pytest.raises(ValueError, match=rf"Text 0 has {kept} placeholders .* max_length is {limit}\."):
            cutting(images=images, text=text, truncation=True, max_length=limit)
        return
    ids = cutting(images=images, text=text, truncation=True, max_length=limit)["input_ids"][0]
    assert len(ids) <= limit
    assert len(ids) == len(whole) or len(ids) > limit - len(BOX), "no more is cut than needed"
    special = [token for token in whole if token in (cutting.image_token_id, cutting.tokenizer.bos_token_id)]
    assert [token for token in ids if token in special] == special
    rest = cutting.tokenizer.decode([token for token in ids if token not in special])
    every = cutting.tokenizer.decode([token for token in whole if token not in special])
    assert every.startswith(rest) if cutting.tokenizer.truncation_side == "right" else every.endswith(rest)
    cut = every.removeprefix(rest) if every.startswith(rest) else every.removesuffix(rest)
    assert len(re.findall(r"\[0", cut)) == len(re.findall(r"4\]", cut)), "no box is cut in half"


def test_a_batch_is_padded_after_it_was_cut(processor, picture, objects):
    """Every tensor has the shape of `input_ids`, and everything is as without truncation where nothing is cut."""
    prompts = {"images": [picture] * 2, "text": ["<image> " + "a long text " * 20, "<image> b"]}
    options = {"visual_objects": [objects[0]] * 2, "return_tensors": "pt"}
    cut = processor(**prompts, **options, padding=True, truncation=True, max_length=40, return_mm_token_type_ids=True)
    assert cut["input_ids"].shape == cut["attention_mask"].shape == cut["mm_token_type_ids"].shape == (2, 40)
    assert (cut["input_ids"] == processor.image_token_id).sum(1).tolist() == [24, 24]
    assert cut["attention_mask"].sum(1).tolist() == [40, 27]
    assert cut["pixel_values"].shape == (2, 3, 64, 64)
    whole = processor(**prompts, **options, padding=True)
    same = processor(**prompts, **options, padding=True, truncation=True, max_length=10_000)
    assert same.keys() == whole.keys()
    assert all(torch.equal(same[name], whole[name]) for name in whole)
    text = {"text_kwargs": {"truncation": True, "max_length": 40, "padding": "max_length", "padding_side": "right"}}
    right = processor(**prompts, **options, **text)
    assert right["attention_mask"][1].tolist() == [1] * 27 + [0] * 13
    assert processor(text="abcdef", truncation=True, max_length=4, pad_to_multiple_of=8, padding=True)[
        "attention_mask"
    ] == [[0] * 4 + [1] * 4]


def test_answers_are_marked_in_what_is_left(processor):
    """The mask of the assistant's tokens, for training, follows the cut."""
    chat = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cup of tea."}]
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    whole = processor.apply_chat_template(chat, **options)
    limit = len(whole["input_ids"][0]) - 6
    cut = processor.apply_chat_template(chat, **options, processor_kwargs={"truncation": True, "max_length": limit})
    assert cut["input_ids"][0] == whole["input_ids"][0][:limit]
    assert cut["assistant_masks"][0] == whole["assistant_masks"][0][:limit]
    assert sum(cut["assistant_masks"][0]) > 0


@pytest.mark.parametrize("length", [0, -1])
def test_a_length_below_one_is_refused(processor, length):
    """0 meant the tokenizer's own limit."""
    with pytest.raises(ValueError, match=f"max_length must be at least 1, got {length}"):
        processor(text="abcdef", truncation=True, max_length=length)
