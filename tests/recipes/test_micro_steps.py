"""The micro model's steps: from nothing to a table, and not twice."""

import json

import pytest

from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.evaluation import KINDS, draw_cases, guess, is_right, overlap
from lyrics.recipes.micro.questions import Question
from lyrics.recipes.micro.steps import FINISHED, OWN, SHARED, Workshop, run_steps
from lyrics.recipes.micro.table import format_table
from lyrics.recipes.micro.variants import VARIANTS


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    shop = Workshop(tmp_path_factory.mktemp("micro"), smoke=True)
    run_steps(shop)
    return shop


def test_every_step_runs_once(workshop):
    folders = [workshop.shared(step) for step in SHARED] + [workshop.own(step) for step in OWN]
    before = [(folder / FINISHED).stat().st_mtime_ns for folder in folders]
    run_steps(workshop)
    assert [(folder / FINISHED).stat().st_mtime_ns for folder in folders] == before
    trained = [folder for folder in folders if (folder / "trainer_state.json").is_file()]
    assert len(trained) == 8
    assert all((folder / "curves.png").is_file() for folder in trained)


def test_a_step_that_finished_with_another_recipe_is_not_taken_for_done(workshop):
    file = workshop.shared("vision") / FINISHED
    kept = file.read_text()
    file.write_text(json.dumps(json.loads(kept) | {"settings": {"max_steps": 99}}))
    with pytest.raises(ValueError, match=r"vision has finished with other settings .*max_steps"):
        run_steps(workshop, ["vision"])
    file.write_text(kept)


def test_the_model_is_complete_and_small(workshop):
    folder = workshop.own("stage2") / "model"
    model, processor = LyricsForConditionalGeneration.from_pretrained(folder), LyricsProcessor.from_pretrained(folder)
    assert processor.refiner.fingerprint() == processor.refiner_fingerprint
    modules = (model, processor.refiner)
    assert sum(parameter.numel() for module in modules for parameter in module.parameters()) < 7.5e6  # 15 MB in bf16


@pytest.mark.parametrize("name", ["no_refiner", "no_stage1", "boxes_only"])
def test_variants_share_steps_and_differ_in_theirs(workshop, name):
    shop = Workshop(workshop.out, name, smoke=True)
    run_steps(shop)
    config = LyricsForConditionalGeneration.from_pretrained(shop.own("stage2") / "model").config.mqformer_config
    assert config.num_queries == 32
    assert (config.num_grounding_queries == 0) == (name == "no_refiner")
    results = json.loads((shop.own("evaluation") / "results.json").read_text())
    assert set(results["accuracy"]) == set(KINDS)
    assert VARIANTS[name].title in format_table(workshop.out)


def test_a_box_is_right_when_half_of_it_is():
    question = Question("referring", "Where is the red ring?", "red ring", (0.0, 0.0, 0.5, 0.5))
    assert overlap((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.25)) == pytest.approx(0.5)
    assert is_right(question, "red ring: [0.000, 0.000, 0.500, 0.260]")
    assert not is_right(question, "red ring: [0.000, 0.000, 0.500, 0.240]")
    assert not is_right(question, "red ring")


def test_guessing_is_not_knowing():
    found = guess(draw_cases(40))
    assert set(found["majority"]) == set(KINDS)
    assert all(value < 75 for by_kind in found.values() for value in by_kind.values())
