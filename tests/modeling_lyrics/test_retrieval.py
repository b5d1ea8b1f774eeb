"""Use of a first stage: features, scores of pairs, captions, masked objects, and Transformers' interface."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForZeroShotImageClassification

from lyrics.modeling_lyrics import LyricsForImageTextRetrieval
from lyrics.modeling_lyrics.mqformer_attention_masks import Segment
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects
from lyrics.processing_lyrics.pretraining_inputs import CAPTION, SPATIAL
from lyrics.trainers import LyricsPretrainingCollator

from ..pretraining_parts import build_model, build_processor, build_rows


@pytest.fixture(scope="module")
def model():
    return build_model(std=0.2).eval()


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def rows():
    return build_rows(4, first=1)


@pytest.fixture(scope="module")
def images(processor, rows):
    return processor.prepare_images([row["image"] for row in rows], [row["visual_objects"] for row in rows])


def texts_of(processor, rows, with_objects=True):
    objects = [row["visual_objects"] for row in rows] if with_objects else None
    return processor.prepare_texts([row["caption"] for row in rows], visual_objects=objects)


def test_the_processor_prepares_what_the_collator_of_the_training_does(processor, rows, images):
    assert (SPATIAL, CAPTION) == (Segment.SPATIAL, Segment.CAPTION)
    batch = LyricsPretrainingCollator(processor, mask_probability=0.0)(rows)
    for name, values in {**images, **texts_of(processor, rows)}.items():
        torch.testing.assert_close(values, batch[name])
    masked = processor.prepare_masked(
        [row["image"] for row in rows],
        [[] for _ in rows],
        [row["caption"] for row in rows],
        [row["visual_objects"] for row in rows],
    )
    for name in ("masked_input_ids", "masked_positions", "masked_labels", "masked_items", "masked_kinds"):
        torch.testing.assert_close(masked[name], batch[name])


def test_objects_of_texts_in_every_form(processor, rows):
    """As elsewhere: alone, as dictionaries, and `None` for none."""
    objects = rows[0]["visual_objects"]
    expected = processor.prepare_texts(["a", "b"], visual_objects=[VisualObjects(), objects])
    given = processor.prepare_texts(["a", "b"], visual_objects=[None, objects.to_dict()])
    assert all(torch.equal(given[name], values) for name, values in expected.items())
    alone = processor.prepare_texts("b", visual_objects=objects)
    assert torch.equal(alone["input_ids"][0], expected["input_ids"][1])
    with pytest.raises(ValueError, match="must be VisualObjects or their dictionaries"):
        processor.prepare_texts(["a"], visual_objects=[3])


def test_a_processor_may_write_objects_in_fewer_tokens(processor, rows, tmp_path):
    """The collator and the processor alike; the style is saved, and what was masked reads back."""
    short = copy.deepcopy(processor)
    short.spatial_text = "short"
    short.save_pretrained(tmp_path)
    short = LyricsProcessor.from_pretrained(tmp_path)
    batch = LyricsPretrainingCollator(short, mask_probability=0.0)(rows)
    texts = texts_of(short, rows)
    for name, values in texts.items():
        torch.testing.assert_close(values, batch[name])
    assert texts["input_ids"].shape[1] < texts_of(processor, rows)["input_ids"].shape[1]
    objects = [row["visual_objects"] for row in rows]
    inputs = short.prepare_masked([row["image"] for row in rows], [[], [(1, "box")], [], []], visual_objects=objects)
    found = short.decode_masked(inputs, inputs["masked_labels"])
    np.testing.assert_allclose([one["was"] for one in found], objects[1].boxes[1], atol=5e-4)
    with pytest.raises(ValueError, match=r"spatial_text must be one of .*, got 'shorter'"):
        LyricsProcessor(short.image_processor, short.tokenizer, short.mqformer_tokenizer, spatial_text="shorter")


@torch.no_grad()
def test_the_features_are_those_that_the_contrastive_loss_compares(model, processor, rows, images):
    batch = LyricsPretrainingCollator(processor)(rows)
    arguments = {name: batch[name] for name in batch if not name.startswith("sample")}
    image = model.get_image_features(**images)
    text = model.get_text_features(**texts_of(processor, rows))
    assert image.pooler_output.shape == text.pooler_output.shape == (4, model.config.projection_size)
    torch.testing.assert_close(image.pooler_output.norm(dim=1), torch.ones(4))
    similarity = image.pooler_output @ text.pooler_output.T
    hits = similarity.argmax(dim=1) == torch.arange(4)
    output = model(**arguments)
    assert output.recall_image_to_text.item() == pytest.approx(hits.float().mean().item())
    assert model.get_image_features(**images, return_dict=False)[1].equal(image.pooler_output)


@torch.no_grad()
def test_features_do_not_depend_on_the_batch_nor_on_padding(model, processor, rows, images):
    together = model.get_image_features(**images).pooler_output
    texts = model.get_text_features(**texts_of(processor, rows, with_objects=False)).pooler_output
    for number, row in enumerate(rows):
        alone = processor.prepare_images(row["image"], row["visual_objects"])
        torch.testing.assert_close(model.get_image_features(**alone).pooler_output[0], together[number])
        text = model.get_text_features(**processor.prepare_texts(row["caption"])).pooler_output[0]
        torch.testing.assert_close(text, texts[number])


@torch.no_grad()
def test_match_scores_pairs_and_repeats_one_image_or_one_text(model, processor, rows, images):
    texts = texts_of(processor, rows)
    pairs = model.match(**images, **texts)
    torch.testing.assert_close(pairs.scores, pairs.logits.softmax(dim=1)[:, 1])
    one = {name: values[1:2] for name, values in images.items()}
    torch.testing.assert_close(model.match(**one, **texts).logits[1], pairs.logits[1])
    one = {name: values[2:3] for name, values in texts.items()}
    torch.testing.assert_close(model.match(**images, **one).logits[2], pairs.logits[2])
    with pytest.raises(ValueError, match="as many images as texts, or one of either: got 4, 3"):
        model.match(**images, **{name: values[:3] for name, values in texts.items()})


@torch.no_grad()
def test_a_text_without_objects_is_matched_by_the_visual_queries_alone(model, processor, rows, images):
    query = texts_of(processor, rows, with_objects=False)
    without = {"pixel_values": images["pixel_values"]}
    torch.testing.assert_close(model.match(**images, **query).logits, model.match(**without, **query).logits)
    texts = texts_of(processor, rows)
    assert not torch.allclose(model.match(**images, **texts).logits, model.match(**without, **texts).logits)


@torch.no_grad()
def test_a_caption_is_what_the_captioning_objective_finds_most_probable(model, processor, rows, images):
    ids = processor.caption_token_ids
    tokens = model.caption(**images, **ids, max_new_tokens=6)
    assert tokens.shape[0] == 4
    assert 1 <= tokens.shape[1] <= 6
    ends = (tokens == ids["eos_token_id"]).int().cumsum(dim=1)
    assert (tokens[(ends - (tokens == ids["eos_token_id"]).int()) > 0] == ids["pad_token_id"]).all()
    # teacher forcing over the written tokens predicts them again
    written = torch.cat([torch.full((4, 1), ids["decoder_start_token_id"]), tokens], dim=1)[:, :-1]
    key_values = model.model(**images).key_values
    from lyrics.modeling_lyrics.mqformer_attention_masks import run_mqformer

    text = model._caption(written, torch.full_like(written, CAPTION))
    _, states = run_mqformer(model.model.mqformer, model.captioning.table, text, key_values)
    predicted = model.lm_head(states).argmax(dim=-1)
    before_end = ends - (tokens == ids["eos_token_id"]).int() == 0
    assert predicted[before_end].equal(tokens[before_end])
    assert all(isinstance(one, str) for one in processor.decode_captions(tokens))
    with pytest.raises(ValueError, match="max_new_tokens must be between 1"):
        model.caption(**images, **ids, max_new_tokens=0)


@torch.no_grad()
def test_fill_predicts_masked_items_and_the_processor_decodes_them(model, processor, rows):
    pictures, objects = [row["image"] for row in rows], [row["visual_objects"] for row in rows]
    counts = [len(one) for one in objects]
    assert counts == [1, 2, 3, 0]
    masks = [[(0, "label")], [(1, "box")], [(2, "x2"), (0, "label")], []]
    inputs = processor.prepare_masked(pictures, masks, visual_objects=objects)
    output = model.fill(**inputs)
    found = processor.decode_masked(inputs, output.token_ids, output.scores)
    assert [(one["image"], one["item"]) for one in found] == [
        (0, "label"),
        *((1, name) for name in ("x1", "y1", "x2", "y2")),
        (2, "label"),
        (2, "x2"),
    ]
    assert [one["was"] for one in found if one["item"] == "label"] == [objects[0].labels[0], objects[2].labels[0]]
    box = [one["was"] for one in found if one["image"] == 1]
    np.testing.assert_allclose(box, objects[1].boxes[1], atol=5e-4)
    assert all(0 <= one["score"] <= 1 for one in found)
    # what is masked is hidden: another word of as many tokens changes nothing
    renamed = VisualObjects.from_dict(objects[0].to_dict() | {"labels": ["x"]})
    shown = VisualObjects.from_dict(objects[0].to_dict() | {"labels": ["y"]})
    first, second = (
        processor.prepare_masked(pictures[0], [[(0, "label")]], visual_objects=one) for one in (renamed, shown)
    )
    assert first["masked_input_ids"].equal(second["masked_input_ids"])
    with pytest.raises(ValueError, match=r"Mask \(1, 'label'\) of image 0 names nothing: it has 1 objects"):
        processor.prepare_masked(pictures[:1], [[(1, "label")]], visual_objects=objects[:1])


@torch.no_grad()
def test_retrieval_model_compares_everything_with_everything(model, processor, rows, images, tmp_path):
    model.save_pretrained(tmp_path)
    retrieval = AutoModelForZeroShotImageClassification.from_pretrained(tmp_path)
    assert type(retrieval) is LyricsForImageTextRetrieval
    texts = {name: values[:3] for name, values in texts_of(processor, rows, with_objects=False).items()}
    output = retrieval(**images, **texts)
    assert output.logits_per_image.shape == (4, 3)
    similarity = output.image_embeds @ output.text_embeds.T
    torch.testing.assert_close(output.logits_per_image, similarity / retrieval.contrastive.temperature)
    torch.testing.assert_close(output.logits_per_text, output.logits_per_image.T)
    torch.testing.assert_close(output.image_embeds, model.get_image_features(**images).pooler_output)
    pairs = retrieval(**images, **texts_of(processor, rows), use_image_text_matching_head=True)
    torch.testing.assert_close(pairs.logits_per_image, model.match(**images, **texts_of(processor, rows)).logits)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_retrieval_model_reads_the_texts_of_a_plain_tokenizer(model, processor, rows, images, side, tmp_path):
    model.save_pretrained(tmp_path)
    retrieval = LyricsForImageTextRetrieval.from_pretrained(tmp_path)
    captions, tokenizer = [row["caption"] for row in rows], processor.mqformer_tokenizer
    plain = tokenizer(captions, padding=True, padding_side=side, return_tensors="pt")
    with pytest.raises(ValueError, match="object_start_token_id"):
        retrieval(**plain, pixel_values=images["pixel_values"])
    retrieval.config.object_start_token_id = tokenizer.convert_tokens_to_ids("[BOS]")
    output = retrieval(**plain, pixel_values=images["pixel_values"])
    expected = model.get_text_features(**texts_of(processor, rows, with_objects=False)).pooler_output
    torch.testing.assert_close(output.text_embeds, expected)


def test_a_missing_head_is_named(processor, rows, images):
    model = build_model(itc_weight=0, itm_weight=0, icg_weight=0).eval()
    texts = texts_of(processor, rows)
    for method, weight, arguments in (
        ("get_image_features", "itc_weight", images),
        ("get_text_features", "itc_weight", texts),
        ("match", "itm_weight", {**images, **texts}),
        ("caption", "icg_weight", {**images, **processor.caption_token_ids}),
    ):
        with pytest.raises(ValueError, match=f"{method} needs .* {weight} is 0"):
            getattr(model, method)(**arguments)


def test_wrong_texts_are_named(processor):
    with pytest.raises(ValueError, match="texts must be strings, got 3, a int"):
        processor.prepare_texts(["a", 3])
    with pytest.raises(ValueError, match="visual_objects for 1 texts, but 2 texts"):
        processor.prepare_texts(["a", "b"], visual_objects=[VisualObjects()])
    with pytest.raises(ValueError, match="There is no image to prepare"):
        processor.prepare_images([])
