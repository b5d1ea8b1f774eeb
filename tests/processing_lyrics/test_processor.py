"""LyricsProcessor: what a call returns, the refiner behind it, and how it is kept."""

import copy
import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor

from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE
from lyrics.modeling_lyrics import LyricsConfig, LyricsForConditionalGeneration
from lyrics.modeling_lyrics.refiner_prompts import build_prompts
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects, drawing
from lyrics.processing_lyrics.spatial_text import as_text

SPATIAL = {"mqformer_input_ids", "mqformer_attention_mask", "mqformer_position_ids"}
REGIONS = {"region_features", "region_attention_mask"}


@pytest.fixture
def bare(processor):
    """The processor without its refiner."""
    parts = (processor.image_processor, processor.tokenizer, processor.mqformer_tokenizer)
    return LyricsProcessor(*parts, num_query_tokens=24, region_feature_size=36)


# ---------------------------------------------------------------------------------------------------- a call


def test_what_a_call_returns(processor, pictures, objects):
    out = processor(
        images=[pictures[:2], [], pictures[2:]],
        text=["<image><image> two", "none", "<image> one"],
        visual_objects=objects,
        padding=True,
        return_tensors="pt",
    )
    assert set(out) == {"input_ids", "attention_mask", "pixel_values"} | REGIONS | SPATIAL
    assert set(out) == set(processor.model_input_names)
    assert out["pixel_values"].shape == (3, 3, 64, 64)
    longest = max(len(one) for one in objects)
    assert out["region_features"].shape == (3, longest, 36)
    assert out["region_attention_mask"].sum(1).tolist() == [len(one) for one in objects]
    placeholders = (out["input_ids"] == processor.image_token_id).sum(1)
    assert placeholders.tolist() == [48, 0, 24]
    assert (out["attention_mask"][:, -1] == 1).all(), "prompts are padded on the left"


@pytest.mark.parametrize(
    ("mode", "names"),
    [("none", set()), ("instruction", SPATIAL - {"mqformer_position_ids"}), ("spatial+instruction", SPATIAL)],
)
def test_what_the_mqformer_reads(bare, pictures, objects, mode, names):
    bare.mqformer_text = mode
    out = bare(images=pictures[0], text="<image> What is it?", visual_objects=objects[0], return_tensors="pt")
    assert (
        {name for name in out if name.startswith("mqformer")}
        == names
        == {name for name in bare.model_input_names if name.startswith("mqformer")}
    )
    if mode == "none":
        return
    text = bare.mqformer_tokenizer.decode(out["mqformer_input_ids"][0])
    assert text.endswith("[CLS] what is it? [SEP]")
    assert text.startswith("[BOS]" if mode != "instruction" else "[CLS]")
    if mode != "instruction":
        assert text.count("[SEP]") == 1
        starts = (out["mqformer_position_ids"][0] == 0).nonzero().flatten().tolist()
        tokens = bare.mqformer_tokenizer.convert_ids_to_tokens(out["mqformer_input_ids"][0].tolist())
        assert [tokens[start] for start in starts] == ["[BOS]", "[CLS]"]


def test_long_texts_lose_whole_objects_and_the_end_of_the_instruction(bare, picture):
    many = VisualObjects(
        labels=[f"object number {index}" for index in range(100)],
        boxes=np.tile([0.1, 0.2, 0.3, 0.4], (100, 1)),
        scores=np.linspace(1, 0, 100),
        region_features=np.zeros((100, 36)),
    )
    out = bare(images=picture, text="<image>" + " word" * 5000, visual_objects=many, return_tensors="pt")
    assert out["mqformer_position_ids"].max() < 512
    text = bare.mqformer_tokenizer.decode(out["mqformer_input_ids"][0])
    assert text.split(" [CLS]")[0].endswith("] ;")
    assert "object number 0 :" in text
    assert "object number 99" not in text
    assert out["region_attention_mask"].sum() == 100


def test_objects_given_equal_objects_refined(processor, pictures, objects):
    text = ["<image> a", "<image> b", "<image> c"]
    given = processor(images=pictures, text=text, visual_objects=objects, padding=True, return_tensors="pt")
    refined = processor(images=pictures, text=text, padding=True, return_tensors="pt")
    rows = [one.to_dict() for one in objects]
    from_rows = processor(images=pictures, text=text, visual_objects=rows, padding=True, return_tensors="pt")
    for name in given:
        torch.testing.assert_close(given[name], refined[name], atol=1e-5, rtol=1e-5)
        assert torch.equal(given[name], from_rows[name])


def test_a_picture_that_stands_there_twice_is_refined_once(processor, picture, pictures):
    processor.refined_cache.clear()
    entries = processor.refined_cache.stats().entries
    first, other, second = processor.refine([picture, pictures[1], picture])
    assert first == second
    assert other != first
    assert processor.refined_cache.stats().entries == entries + 2


def test_objects_for_some_pictures(processor, pictures, objects):
    some = processor(images=pictures, visual_objects=[objects[0], None, objects[2]], return_tensors="pt")
    every = processor(images=pictures, visual_objects=objects, return_tensors="pt")
    torch.testing.assert_close(some["region_features"], every["region_features"], atol=1e-5, rtol=1e-5)


def test_without_a_refiner(bare, picture, caplog):
    """No region tensors: the model then warns."""
    out = bare(images=picture, text="<image> What?", return_tensors="pt")
    assert not REGIONS & set(out)
    with pytest.raises(ValueError, match="has no refiner"):
        bare.refine(picture)
    with pytest.raises(ValueError, match=r"Images \[1\] have no visual_objects"):
        bare(images=[picture] * 2, visual_objects=[VisualObjects(), None])


def test_pictures_without_objects(bare, picture):
    """An empty tensor, not an error."""
    out = bare(images=picture, text="<image>", visual_objects=VisualObjects(), return_tensors="pt")
    assert out["region_features"].shape == (1, 0, 36)


def test_same_picture_twice(processor, picture, objects):
    out = processor(images=[picture, picture], visual_objects=[objects[0]] * 2, return_tensors="pt")
    assert torch.equal(out["pixel_values"][0], out["pixel_values"][1])


def test_lists_without_return_tensors(processor, picture, objects):
    out = processor(images=picture, text="<image> What?", visual_objects=objects[0])
    assert isinstance(out["input_ids"], list)
    assert isinstance(out["region_features"], np.ndarray)


def test_prompts_are_padded_on_the_left_whatever_was_saved_with_the_tokenizer(processor, tmp_path):
    processor.tokenizer.padding_side = "right"
    processor.save_pretrained(tmp_path)
    loaded = LyricsProcessor.from_pretrained(tmp_path)
    mask = loaded(text=["a", "a longer text"], padding=True)["attention_mask"][0]
    assert mask[0] == 0


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_padding_side_can_be_chosen(processor, padding_side):
    mask = processor(text=["a", "a longer text"], padding=True, padding_side=padding_side)["attention_mask"][0]
    assert mask[0 if padding_side == "left" else -1] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"text": "<image> a", "images": []}, "got 1 placeholders and 0 images"),
        ({"text": "<image> a", "images": 2}, "got 1 placeholders and 2 images"),
        ({"text": ["<image> a", "<image>"], "images": [2, 0]}, "Text 0 has 1 <image> placeholders, but 2 images"),
        (
            {"text": "<image>", "images": 1, "visual_objects": [VisualObjects()] * 2},
            "visual_objects for 2 images, but 1",
        ),
        ({"text": "<image>", "images": 1, "mqformer_instructions": ["a", "b"]}, "2 mqformer_instructions for 1"),
        ({}, "at least one input"),
    ],
)
def test_counts_that_do_not_match(processor, picture, call, message):
    """Both counts are named."""
    call = dict(call)
    if isinstance(call.get("images"), int):
        call["images"] = [picture] * call["images"]
    elif call.get("images"):
        call["images"] = [[picture] * count for count in call["images"]]
    with pytest.raises(ValueError, match=message):
        processor(**call)


def test_features_of_another_refiner_are_refused(processor, picture):
    other = VisualObjects(labels=["a"], boxes=[[0, 0, 1, 1]], scores=[1], region_features=np.zeros((1, 260)))
    with pytest.raises(ValueError, match="width 260, but this model takes 36"):
        processor(images=picture, visual_objects=other)


def test_a_truncating_tokenizer_is_not_saved_as_one(processor, picture, objects, tmp_path):
    processor(images=picture, text="<image> a", visual_objects=objects[0], truncation=True, max_length=30)
    processor.mqformer_tokenizer("a", truncation=True, max_length=3)
    processor.save_pretrained(tmp_path, save_refiner=False)
    loaded = LyricsProcessor.from_pretrained(tmp_path)
    assert len(loaded(text="a" * 50)["input_ids"][0]) == 51
    assert len(loaded.mqformer_tokenizer("a " * 50)["input_ids"]) == 52


strange = st.text(alphabet="a \0\ud800\udfff\u202e\u05d0\u0301\U0001f600\ufeff\U000f0000[]<>{}%\n.,?|;:", max_size=12)


@settings(max_examples=40)
@given(words=strange, label=strange, answer=st.text(max_size=8))
def test_strange_text_is_text(processor, picture, words, label, answer):
    """In prompts, chats, labels and tags, and on the way back."""
    objects = VisualObjects(labels=[label], boxes=[[0, 0, 1, 1]], scores=[1], region_features=np.zeros((1, 36)))
    options = {"visual_objects": objects, "return_tensors": "pt"}
    prompt = processor(images=picture, text=f"<image>{words}", **options)
    chat = [
        {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": words}]},
        {"role": "assistant", "content": answer},
    ]
    structured = processor.apply_chat_template(chat, tokenize=True, return_dict=True, processor_kwargs=options)
    for inputs in (prompt, structured):
        assert (inputs["input_ids"] == processor.image_token_id).sum() == 24
        assert inputs["mqformer_input_ids"].shape[1] <= 2 * 512
    assert processor.decode(prompt["input_ids"][0], skip_special_tokens=True) == as_text(words)
    prompts = build_prompts([label, words], processor.refiner.tokenizer, ", ", 256)
    assert all(one.caption.endswith(".") for one in prompts)
    assert processor.visualize(picture, objects)
    assert VisualObjects.from_dict(objects.to_dict()) == objects
    assert pa.array(objects.labels).to_pylist() == objects.labels


@pytest.mark.parametrize("unit", ["word ", "<image", "[0.1, 0.2, 0.3, 0.4] ", "\ud800"])
def test_a_hundred_thousand_characters(processor, picture, objects, unit):
    """Nothing is lost, and the placeholders stay together."""
    text = (unit * (100_000 // len(unit) + 1))[:100_000]
    chat = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": text}]}]
    options = {"visual_objects": objects[0], "return_tensors": "pt"}
    ids = processor.apply_chat_template(chat, tokenize=True, return_dict=True, processor_kwargs=options)["input_ids"]
    assert (ids[0] == processor.image_token_id).nonzero().flatten().diff().unique().tolist() == [1]
    assert processor.decode(ids[0], skip_special_tokens=True).endswith(as_text(text))
    cut = processor(images=picture, text=f"<image>{text}", truncation=True, max_length=500, **options)["input_ids"]
    assert cut.shape[1] <= 500
    found = processor.post_process_grounding(processor.decode(cut[0]))[0]["boxes"]
    assert len(found) == processor.decode(cut[0]).count("[")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"text": 3}, "text must be a string or a list of strings, got int"),
        ({"text": ["a", None]}, "got NoneType, str"),
        ({"text": []}, "empty list of texts"),
        ({"visual_objects": "abc"}, "must be VisualObjects or their dictionaries"),
        ({"visual_objects": {"boxes": [[0, 0, 1]]}}, r"boxes must be \(R, 4\)"),
        ({"mqformer_instructions": [3]}, "mqformer_instructions must be a string"),
    ],
)
def test_what_is_no_input_is_named(processor, picture, call, message):
    with pytest.raises(ValueError, match=message):
        processor(**{"images": None if "text" in call else picture} | call)


def test_options_must_be_known(processor):
    parts = (processor.image_processor, processor.tokenizer, processor.mqformer_tokenizer)
    with pytest.raises(ValueError, match="mqformer_text must be one of"):
        LyricsProcessor(*parts, mqformer_text="everything")


# ---------------------------------------------------------------------------------------------------- its refiner


class Store:
    """Anything with a look-up."""

    def __init__(self, known):
        self.known = known
        self.asked = 0

    def lookup(self, picture):
        self.asked += 1
        return self.known.get(picture.size)


def test_a_store_is_asked_first(processor, pictures, objects):
    marked = copy.deepcopy(objects[1])
    marked.labels[0] = "from the store"
    store = Store({pictures[1].size: marked})
    processor.store = store
    try:
        seen = processor.refine(pictures)
    finally:
        processor.store = None
    assert store.asked == 3
    assert seen[1] is marked
    assert [one.labels for one in (seen[0], seen[2])] == [objects[0].labels, objects[2].labels]


def test_tags_of_ones_own(processor, picture):
    seen = processor.refine(picture, tags=[["zebra"]])[0]
    assert set(seen.labels) == {"zebra"}
    assert seen.tags == ["zebra"]


def test_one_list_of_tags_is_for_every_picture(picture):
    """On the shipped model, as words and not as letters; the store is not asked."""
    shipped = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
    shipped.refined_cache.max_bytes = 0  # numbers of a batch differ from those of one image in their last digits
    words = ["red star", "ball"]
    for pictures in ([SCENE_PICTURE], [SCENE_PICTURE, picture]):  # as many words as images, and fewer
        alike = shipped.refine(pictures, tags=words)
        assert [one.tags for one in alike] == [words] * len(pictures)
        assert alike == shipped.refine(pictures, tags=[words] * len(pictures))
        assert alike == [
            VisualObjects(**vars(one)) for one in shipped.refiner.refine(shipped.load_pictures(pictures), words)
        ]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("ball", "tags must be a list of words, or one list for each image, got 'ball'"),
        ([], "tags for 0 images, but 2"),
        ([["ball"]], "tags for 1 images, but 2"),
        ([["ball"]] * 3, "tags for 3 images, but 2"),
        (["ball", ["cup"]], "all words or all lists of words, got 'ball'"),
        ([["ball", 3], []], "tags must be strings, got 3, a int"),
        ([3, None], "all words or all lists of words, got 3"),
        ({"ball"}, "tags must be a list of words"),
    ],
)
def test_tags_that_are_no_words_are_refused(processor, picture, tags, message):
    for refine in (processor.refine, processor.refiner.refine):
        with pytest.raises(ValueError, match=message):
            refine([picture, picture.copy()], tags=tags)


def test_attached_refiner_must_fit(bare, published_refiner, refiner):
    published = copy.deepcopy(published_refiner)
    published.config.detector_config.d_model = 256
    with pytest.raises(ValueError, match="width 260, but this processor's model takes 36"):
        bare.attach_refiner(published)
    assert bare.attach_refiner(refiner) is bare
    assert bare.refiner is refiner


def test_the_refiner_is_loaded_once_on_first_use(saved, picture):
    processor = LyricsProcessor.from_pretrained(saved, refiner_kwargs={"dtype": torch.bfloat16})
    assert processor.has_refiner
    assert not processor._refiner.loaded
    assert str(processor)
    assert not processor._refiner.loaded
    refiner = processor.refiner
    assert refiner is processor.refiner
    assert refiner.dtype == torch.bfloat16
    assert processor.to(dtype=torch.float32).refiner.dtype == torch.float32
    assert LyricsProcessor.from_pretrained(saved).to(dtype=torch.bfloat16).refiner.dtype == torch.bfloat16


def test_without_loading_a_refiner(saved, refiner):
    skipped = AutoProcessor.from_pretrained(saved, refiner=False)
    assert not skipped.has_refiner
    assert "refiner" not in skipped.tokenizer.init_kwargs
    given = LyricsProcessor.from_pretrained(saved, refiner=refiner)
    assert given.refiner is refiner


def test_copies_and_pickles_carry_no_weights(saved, picture, processor):
    loaded = LyricsProcessor.from_pretrained(saved)
    expected = loaded.refine(picture)
    assert copy.deepcopy(loaded).refiner is loaded.refiner
    content = pickle.dumps(loaded)
    assert len(content) < 300_000
    again = pickle.loads(content)
    assert not again._refiner.loaded
    assert again.refine(picture) == expected
    with pytest.raises(ValueError, match="cannot be pickled"):
        pickle.dumps(processor)


def test_mapping_a_data_set(saved, picture):
    """The fingerprint by which `datasets` caches is that of the settings, before and after the refiner is loaded."""
    loaded = LyricsProcessor.from_pretrained(saved)
    before = Hasher.hash(loaded)
    rows = Dataset.from_dict({"text": ["a", "b"]})
    mapped = rows.map(lambda row: {"count": len(loaded.refine(picture)[0])})
    assert mapped["count"][0] == mapped["count"][1] > 0
    assert loaded._refiner.loaded
    assert Hasher.hash(loaded) == before == Hasher.hash(LyricsProcessor.from_pretrained(saved))


# ---------------------------------------------------------------------------------------------------- kept


def test_save_and_load(saved, processor, pictures, objects):
    loaded = AutoProcessor.from_pretrained(saved)
    assert type(loaded) is LyricsProcessor
    assert type(loaded.image_processor) is type(processor.image_processor)
    assert loaded.to_dict() == processor.to_dict()
    text = ["<image> a", "<image> b c", "<image> d"]
    one, other = (each(images=pictures, text=text, padding=True, return_tensors="pt") for each in (loaded, processor))
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert loaded.chat_template == processor.chat_template
    assert loaded.refiner_fingerprint == processor.refiner.fingerprint()


def test_auto_image_processor(saved, processor, picture):
    loaded = AutoImageProcessor.from_pretrained(saved)
    assert type(loaded) is type(processor.image_processor)
    one, other = (each(picture, return_tensors="pt")["pixel_values"] for each in (loaded, processor.image_processor))
    assert torch.equal(one, other)


def test_saving_without_the_refiner(processor, tmp_path):
    """As trainers should, into their checkpoints."""
    processor.save_pretrained(tmp_path, save_refiner=False)
    assert not (tmp_path / "refiner").exists()
    assert not AutoProcessor.from_pretrained(tmp_path).has_refiner


def test_processor_and_model_belong_together(saved, picture):
    processor, model = LyricsProcessor.from_pretrained(saved), LyricsForConditionalGeneration.from_pretrained(saved)
    inputs = processor(images=picture, text="<image> What?", return_tensors="pt")
    assert processor.image_token_id == model.config.image_token_id
    assert model.generate(**inputs, max_new_tokens=2).shape[0] == 1


@pytest.mark.parametrize("vocab_size", [360, 365])
def test_published_parts_must_agree_on_the_placeholder(published, tmp_path, vocab_size):
    """It takes the id after the language model's last one."""
    checkpoint = shutil.copytree(published, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("*.bin"))
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"]["vocab_size"] = vocab_size
    (checkpoint / "config.json").write_text(json.dumps(config))
    if vocab_size < 361:
        with pytest.raises(ValueError, match="tokenizer has 361 tokens and the language model 360"):
            LyricsProcessor.from_pretrained(checkpoint)
    else:
        processor = LyricsProcessor.from_pretrained(checkpoint)
        assert processor.image_token_id == LyricsConfig.from_pretrained(checkpoint).image_token_id == vocab_size


# ---------------------------------------------------------------------------------------------------- answers


def test_grounding():
    answers = ["the cup: [0.25, 0.5, 0.75, 1.000] is blue", "nothing"]
    found = LyricsProcessor.post_process_grounding(None, answers, image_sizes=[(200, 400), (10, 10)])
    assert found[0]["labels"] == ["the cup"]
    assert found[0]["boxes"].tolist() == [[100.0, 100.0, 300.0, 200.0]]
    assert found[0]["plain_text"] == "the cup is blue"
    assert found[1]["boxes"].shape == (0, 4)
    assert LyricsProcessor.post_process_grounding(None, answers[0])[0]["boxes"].tolist() == [[0.25, 0.5, 0.75, 1.0]]
    with pytest.raises(ValueError, match="1 image_sizes for 2 texts"):
        LyricsProcessor.post_process_grounding(None, answers, image_sizes=[(1, 1)])


@pytest.mark.parametrize(
    ("smallest", "scores", "familiar"),
    [(None, [], True), (None, [0.1], True), (0.5, [], False), (0.5, [0.3, 0.6], False), (0.5, [0.9, 0.3], True)],
)
def test_scores_tell_whether_a_picture_looks_familiar(processor, monkeypatch, smallest, scores, familiar):
    count = len(scores)
    objects = VisualObjects(labels=["cat"] * count, boxes=np.tile([0.1, 0.1, 0.5, 0.5], (count, 1)), scores=scores)
    monkeypatch.setattr(processor.refiner.config, "familiar_score", smallest)
    assert processor.looks_familiar(objects) is familiar


def test_without_a_refiner_every_picture_looks_familiar(bare):
    assert bare.looks_familiar(VisualObjects())


@pytest.mark.parametrize("size", [(1, 1), (20, 400), (640, 480)])
def test_visualize(processor, size):
    """Boxes are drawn where they are, also at the border, on tiny images, and without any object."""
    picture = Image.new("RGB", size, (128, 128, 128))
    objects = VisualObjects(
        labels=["日本", "a", "a"],
        boxes=[[0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75]],
        scores=[0.9, 0.5, 0.1],
        masks=np.ones((3, 4, 4), bool),
    )
    drawn = processor.visualize(picture, objects)
    assert max(drawn.size) >= 320
    assert drawn.getpixel((drawn.width // 2, drawn.height // 2)) != (128, 128, 128)
    outlined = processor.visualize(picture, objects, masks=False, labels=False, scores=False)
    assert outlined.getpixel((0, 0)) != (128, 128, 128)
    assert processor.visualize(picture, objects, "no box").tobytes() == drawn.tobytes()
    empty = processor.visualize(picture, VisualObjects())
    assert set(empty.get_flattened_data()) == {(128, 128, 128)}
    assert picture.getpixel((0, 0)) == (128, 128, 128), "the caller's image is left alone"


def test_the_boxes_of_an_answer_are_drawn_first(processor):
    """In color, and differently from what the refiner saw, which remains in gray; the first box lies on top."""
    picture = Image.new("RGB", (400, 400), (128, 128, 128))
    seen = VisualObjects(
        ["a", "b"], [[0.05, 0.05, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]], [0.9, 0.8], masks=np.ones((2, 4, 4))
    )
    alone = processor.visualize(picture, seen, "the cup: [0.500, 0.500, 0.900, 0.900]", labels=False)
    colors = {color for _, color in alone.getcolors()}
    assert colors == {(128, 128, 128), drawing.SEEN, (0, 0, 0), drawing.PALETTE[0]}
    assert alone.getpixel((200, 280)) == drawing.PALETTE[0], "the answer's box lies above the object's"
    assert alone.getpixel((20, 40)) == drawing.SEEN
    two = processor.visualize(picture, seen, "cup: [0.5, 0.5, 0.9, 0.9] or [0.5, 0.5, 0.9, 0.9]", labels=False)
    assert two.getpixel((200, 280)) == drawing.PALETTE[0]
    assert two.tobytes() == alone.tobytes()
    assert processor.visualize(picture, seen, "the cup: [0.500, 0.500, 0.900, 0.900]").tobytes() != alone.tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5,), "text must be a string or a list of strings, got int"),
        (([5, "a"],), "text must be a string or a list of strings, got int, str"),
        ((None,), "text must be a string or a list of strings, got NoneType"),
        (("a", 5), r"image_sizes must be a list of \(height, width\), got 5"),
        (("a", [(1, 2, 3)]), r"image_sizes must be a list of \(height, width\), got \[\(1, 2, 3\)\]"),
        (("a", [5]), r"image_sizes must be a list of \(height, width\), got \[5\]"),
    ],
)
def test_what_is_no_answer_is_named(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor.post_process_grounding(*arguments)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_has_a_picture(processor, picture, size):
    for refine in (processor.refine, processor.refiner.refine):
        with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {size}"):
            refine([picture], batch_size=size)


@pytest.mark.parametrize("places", [["text_kwargs"], ["common_kwargs", "text_kwargs"]])
def test_options_of_texts_in_every_place(processor, places):
    """Tensors of all outputs, and truncation, wherever Transformers lets one write them."""
    picture, objects = Image.new("RGB", (40, 30)), VisualObjects()
    call = {"images": picture, "text": "<image> " + "word " * 100, "visual_objects": objects}
    tensors, cut = {"return_tensors": "pt"}, {"truncation": True, "max_length": 60}
    placed = {places[0]: tensors} | {places[-1]: cut if len(places) > 1 else tensors | cut}
    plain, placed = processor(**call, **tensors, **cut), processor(**call, **placed)
    assert all(isinstance(value, torch.Tensor) for value in placed.values())
    assert {name: value.shape for name, value in placed.items()} == {name: v.shape for name, v in plain.items()}


def test_a_beginning_that_was_switched_off_stays_off(processor):
    """Whatever the other texts of the batch hold."""
    bos, plain = processor.tokenizer.bos_token, processor(text=["b"], add_special_tokens=False)["input_ids"]
    assert processor(text=[f"{bos}a", "b"], add_special_tokens=False)["input_ids"][1] == plain[0]
    placed = processor(text=[f"{bos}a", "b"], text_kwargs={"add_special_tokens": False})["input_ids"]
    assert placed[1] == plain[0]
