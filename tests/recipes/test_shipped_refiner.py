"""The refiner of the shipped micro model detects objects, by every interface."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from lyrics.assets import MICRO_CHECKPOINT, SCENE_PICTURE
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.refiner.assemble import measure_refiner
from lyrics.recipes.micro.world.objects import COLORS, SHAPES
from lyrics.recipes.micro.world.scenes import draw_scene
from lyrics.recipes.micro.world.second import draw_second_scene
from lyrics_cli.main import main

IN_THE_SCENE = ["4", "C", "H", "circle", "ring", "star", "star", "star", "star"]


@pytest.fixture(scope="module")
def processor():
    return LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)


def test_the_checkpoint_is_small_and_has_no_pickles():
    files = [path for path in MICRO_CHECKPOINT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15e6
    assert {path.suffix for path in files} == {".safetensors", ".json", ".jinja", ".md"}
    assert (
        "_name_or_path" not in (MICRO_CHECKPOINT / "refiner" / "config.json").read_text()
    )  # a path of the machine that wrote it


@pytest.mark.parametrize(
    ("draw", "least"),
    [
        (partial(draw_scene, "test"), {"shapes_found": 82, "characters_found": 75, "objects_right": 85}),
        (draw_second_scene, {"shapes_found": 94, "objects_right": 90, "scenes_counted": 90, "box_overlap": 82}),
        (partial(draw_second_scene, grounds="saturated"), {"shapes_found": 88, "scenes_counted": 75}),
        (partial(draw_second_scene, grounds="textured"), {"shapes_found": 90, "scenes_counted": 80}),
        (partial(draw_second_scene, aspect_ratio=2.0), {"shapes_found": 92, "scenes_counted": 85}),
        (partial(draw_second_scene, aspect_ratio=1 / 3), {"shapes_found": 92, "scenes_counted": 85}),
    ],
)
def test_recall_and_precision(processor, draw, least):
    """In its own world and in one that training does not show, not far below what is measured with more scenes."""
    measured = measure_refiner(processor, draw, count=40)
    assert {name: measured[name] for name in least if measured[name] < least[name]} == {}


def draw_clouds(number):
    """Colored noise with the spectrum of photographs."""
    random = np.random.default_rng(number)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128))) + 1 / 128
    layers = [np.fft.ifft2(np.fft.fft2(random.normal(size=(128, 128))) / frequency**1.2).real for _ in range(3)]
    values = np.stack(layers, axis=-1)
    return Image.fromarray(np.uint8(np.clip(values / values.std() * 50 + 128, 0, 255)))


def test_pictures_that_are_not_drawings_look_unfamiliar(processor):
    def familiar(pictures):
        return sum(map(processor.looks_familiar, processor.refine(pictures, progress=False)))

    grounds = ("pale", "saturated", "textured")
    assert familiar([draw_second_scene(number, ground).image for ground in grounds for number in range(10)]) >= 29
    assert familiar([draw_clouds(number) for number in range(20)]) <= 1


def test_all_objects_of_the_shipped_scene_are_detected(processor):
    assert sorted(processor.refine(SCENE_PICTURE)[0].labels) == IN_THE_SCENE


def test_colors_are_linearly_decodable_from_region_features(processor):
    """By a linear map that is fitted to other scenes."""
    features, colors = [], []
    for number in range(60):
        scene = draw_second_scene(number)
        objects = processor.refine(scene.image)[0]
        for label, box, feature in zip(objects.labels, objects.boxes, objects.region_features, strict=True):
            distances = [np.abs(np.array(thing.box) - box).max() for thing in scene.objects]
            if label in SHAPES and min(distances) < 0.05:
                features.append(feature)
                colors.append(COLORS.index(scene.objects[int(np.argmin(distances))].color))
    known, wanted = np.array(features), np.eye(len(COLORS))[colors]
    half = len(known) // 2
    known = np.concatenate([known, np.ones((len(known), 1))], axis=1)
    weights = np.linalg.lstsq(known[:half].T @ known[:half] + np.eye(known.shape[1]), known[:half].T @ wanted[:half])[0]
    right = (known[half:] @ weights).argmax(axis=1) == np.array(colors[half:])
    assert right.mean() > 0.9


def test_a_batch_is_refined_like_single_images(processor):
    pictures = [draw_scene("test", number).image for number in range(6)]
    for together, picture in zip(processor.refine(pictures, batch_size=6), pictures, strict=True):
        alone = processor.refine(picture)[0]
        assert together.labels == alone.labels
        np.testing.assert_allclose(together.boxes, alone.boxes, atol=1e-4)
        np.testing.assert_allclose(together.region_features, alone.region_features, atol=1e-3)


def test_a_reloaded_refiner_gives_the_same_objects(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = LyricsProcessor.from_pretrained(tmp_path)
    one, two = (each.refine(SCENE_PICTURE)[0] for each in (processor, again))
    assert processor.refiner.fingerprint() == again.refiner.fingerprint() == processor.refiner_fingerprint
    np.testing.assert_array_equal(one.region_features, two.region_features)


def test_most_objects_are_the_same_in_bfloat16(processor):
    half = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).to(dtype=torch.bfloat16)
    pictures = [draw_scene("test", number).image for number in range(20)]
    pairs = zip(half.refine(pictures), processor.refine(pictures), strict=True)
    assert np.mean([sorted(one.labels) == sorted(two.labels) for one, two in pairs]) >= 0.6


def test_only_given_tags_are_detected(processor):
    assert set(processor.refine(SCENE_PICTURE, tags=[["ring"]])[0].labels) == {"ring"}


def test_the_command_uses_the_shipped_refiner_by_default(capsys):
    assert main(["refine", str(SCENE_PICTURE), "--json"]) == 0
    printed = capsys.readouterr()
    assert "micro model" in printed.err
    assert sorted(thing["label"] for thing in json.loads(printed.out)[0]["objects"]) == IN_THE_SCENE
