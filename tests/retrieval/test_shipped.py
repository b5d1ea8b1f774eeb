"""The first stages that ship: their files, their refiner, the pipeline, and the measurement of the docs."""

import numpy as np
import pytest
from transformers import pipeline

from lyrics.assets import MICRO_CHECKPOINT, MICRO_PRETRAINING, MICRO_SEARCH, SCENE_PICTURE
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.report.retrieval import draw_hard_negatives, format_retrieval, measure_retrieval
from lyrics.recipes.micro.world.objects import COLORS, SHAPES
from lyrics.recipes.micro.world.questions import caption
from lyrics.recipes.micro.world.scenes import draw_scene
from lyrics.retrieval import load_encoder


@pytest.fixture(scope="module")
def encoder():
    return load_encoder()


@pytest.mark.parametrize("first_stage", [MICRO_PRETRAINING, MICRO_SEARCH])
def test_the_checkpoint_is_small_and_belongs_to_the_refiner_that_ships(first_stage):
    files = [path for path in first_stage.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 5e6
    assert {path.suffix for path in files} == {".safetensors", ".json", ".jinja", ".md"}
    fingerprints = {
        LyricsProcessor.from_pretrained(folder, refiner=False).refiner_fingerprint
        for folder in (MICRO_CHECKPOINT, first_stage)
    }
    assert len(fingerprints) == 1
    assert None not in fingerprints


def test_another_refiner_is_refused(encoder):
    other = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
    other.refiner_fingerprint = "another"
    with pytest.raises(ValueError, match="has the fingerprint another; this processor's model was trained with"):
        LyricsProcessor.from_pretrained(MICRO_PRETRAINING).share_refiner_of(other)
    with pytest.raises(ValueError, match="whose refiner is to be shared has none"):
        LyricsProcessor.from_pretrained(MICRO_PRETRAINING).share_refiner_of(
            LyricsProcessor.from_pretrained(MICRO_PRETRAINING)
        )


def test_the_pipeline_for_zero_shot_classification():
    classifier = pipeline("zero-shot-image-classification", model=str(MICRO_PRETRAINING))
    found = classifier(
        [str(SCENE_PICTURE)] * 2, candidate_labels=["a ring", "a large green star"], hypothesis_template="It shows {}."
    )
    assert [{one["label"] for one in of_picture} for of_picture in found] == [{"a ring", "a large green star"}] * 2
    assert sum(one["score"] for one in found[0]) == pytest.approx(1, abs=1e-4)


def test_a_caption_finds_its_scene(encoder):
    """Among 20 validation scenes, which nothing was trained on: nearly always among the first five."""
    scenes = [draw_scene("validation", number) for number in range(5000, 5020)]
    captions = [caption(scene, np.random.default_rng(scene.size)) for scene in scenes]
    images, texts = encoder.embed_images([scene.image for scene in scenes]), encoder.embed_texts(captions)
    ranks = (texts @ images.T > (texts * images).sum(axis=1, keepdims=True)).sum(axis=1)
    assert (ranks < 5).mean() >= 0.9


@pytest.mark.parametrize("attribute", ["color", "shape", "relation"])
def test_hard_negatives_differ_in_one_word(attribute):
    cases = draw_hard_negatives(attribute)
    for _, (right, wrong) in (next(cases) for _ in range(5)):
        pairs = [(one, other) for one, other in zip(right.split(), wrong.split(), strict=True) if one != other]
        pairs = [pair for pair in pairs if pair[0] not in ("a", "an")]
        assert len(pairs) == 1
        words = {"color": COLORS, "shape": SHAPES, "relation": ("left", "right", "above", "below")}[attribute]
        assert {word.strip(".,") for word in pairs[0]} <= set(words)


def test_the_measurement_of_the_docs(encoder):
    measured = measure_retrieval(encoder, pairs=3, negatives=2, reranked=2, first=90_000)
    assert measured["recall"]["contrast"]["text_to_image R@10"][0] == 100
    assert all(value in (0, 50, 100) for kinds in measured["preferred"].values() for value, *_ in kinds.values())
    lines = format_retrieval(measured).splitlines()
    assert len({line.count("|") for line in lines[:6]}) == 1
    assert lines[-1] == "| chance | 50.0 | 50.0 |"
