"""Controls of the micro model: what each arm sees, the files of results, and the report."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, TrainerControl, TrainerState, TrainingArguments

from lyrics.assets import MICRO_CHECKPOINT
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects
from lyrics.recipes.micro.common.run_folders import RunFolders
from lyrics.recipes.micro.common.step_trainer import OutOfTimeError
from lyrics.recipes.micro.controls.arms import ARMS, EVALUATIONS
from lyrics.recipes.micro.controls.cells import RECIPE, SightRows, run_cell, see_training_scenes
from lyrics.recipes.micro.controls.plain_text import ObjectWriter
from lyrics.recipes.micro.controls.question_sets import HELD_OUT_SET, count_combinations, draw_questions
from lyrics.recipes.micro.controls.report import BEGIN, END, NOT_RUN, draw_worth, format_report, insert
from lyrics.recipes.micro.controls.results import (
    Result,
    as_array,
    estimate,
    paired_difference,
    read_results,
    write_result,
)
from lyrics.recipes.micro.controls.segmenter_grid import build_segmenter_grid
from lyrics.recipes.micro.controls.sights import SIGHTS, Lookout, borrow_features, describe_true_objects
from lyrics.recipes.micro.controls.small_view import NAMES, name_objects
from lyrics.recipes.micro.controls.stage1_worth import Cell, run_worth_cell
from lyrics.recipes.micro.controls.time_limit import TimeLimit
from lyrics.recipes.micro.refiner.cell_labels import IGNORED, label_cells, locate_cells
from lyrics.recipes.micro.world.cases import KINDS
from lyrics.recipes.micro.world.datasets import DialogueRows
from lyrics.recipes.micro.world.objects import HELD_OUT, SHAPES
from lyrics.recipes.micro.world.questions import combination
from lyrics.recipes.micro.world.scenes import draw_scene, draw_test_scene
from lyrics.trainers.rewards import box_iou


@pytest.fixture(scope="module")
def refiner():
    """The refiner that ships."""
    return LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).refiner


def found_in(number):
    """Objects with one number each as their feature, 100 times that of the scene."""
    features = np.zeros((3, 36), np.float32)
    features[:, :32] = number + np.arange(3)[:, None] / 10
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1]], np.float32)
    features[:, 32:] = boxes
    return VisualObjects(["star", "ring", "C"], boxes, np.ones(3), features)


def see(sight, refiner=None):
    lookout = Lookout(draw_test_scene, found_in, refiner, lambda objects: f"{len(objects)} objects")
    return SIGHTS[sight](lookout, 7)


def test_the_full_arm_sees_the_picture_and_what_the_refiner_found():
    seen = see("refined")
    assert np.array_equal(seen.image, draw_test_scene(7).image)
    assert seen.objects == found_in(7)


def test_the_arm_without_a_refiner_sees_the_picture_alone():
    seen = see("picture")
    assert np.array_equal(seen.image, draw_test_scene(7).image)
    assert seen.objects is None


def test_a_blank_view_says_nothing_about_the_scene():
    seen = see("blank_view")
    assert seen.image.size == draw_test_scene(7).size
    assert len(set(np.asarray(seen.image).reshape(-1, 3).sum(1))) == 1
    assert seen.objects == found_in(7)


def test_another_view_comes_with_the_objects_of_the_scene():
    seen = see("other_view")
    assert np.array_equal(seen.image, draw_test_scene(8).image)
    assert seen.objects == found_in(7)


def test_shuffled_objects_keep_labels_and_boxes_but_no_feature():
    objects, own = see("shuffled").objects, found_in(7)
    assert (objects.labels, objects.boxes.tolist()) == (own.labels, own.boxes.tolist())
    assert np.array_equal(objects.region_features[:, 32:], own.boxes)
    assert objects.region_features[:, 0].tolist() == own.region_features[[2, 0, 1], 0].tolist()


def test_borrowed_features_are_those_of_the_next_scene():
    objects, own = see("borrowed").objects, found_in(7)
    assert np.array_equal(objects.region_features[:, 32:], own.boxes)
    assert np.array_equal(objects.region_features[:, :32], found_in(8).region_features[:, :32])


def test_the_features_of_a_scene_with_fewer_objects_are_repeated():
    own, other = found_in(7), found_in(8)
    one = VisualObjects(["star"], other.boxes[:1], other.scores[:1], other.region_features[:1])
    assert set(borrow_features(own, one).region_features[:, 0].tolist()) == {8.0}
    nothing = VisualObjects(region_features=np.zeros((0, 36), np.float32))
    assert borrow_features(own, nothing) == own


def test_plain_text_comes_without_a_picture():
    seen = see("text")
    assert (seen.image, seen.objects, seen.text) == (None, None, "3 objects")


@pytest.mark.parametrize("number", [7, 13])  # a square picture, and a long one that is refined in parts
def test_true_objects_are_described_as_the_refiner_describes_what_it_finds(refiner, number):
    """Boxes differ a little from those that it finds, and so do features; those of other objects differ far more."""
    scene = draw_test_scene(number)
    true = describe_true_objects(scene, refiner)
    assert [label for label in true.labels if label in SHAPES] == [thing.shape for thing in scene.objects]
    assert np.array_equal(true.region_features[:, 32:], true.boxes)
    found = refiner.refine([scene.image], progress=False)[0]
    own, others = [], []
    for index, label in enumerate(true.labels):
        for other, name in enumerate(found.labels):
            distance = np.linalg.norm(true.region_features[index, :32] - found.region_features[other, :32].numpy())
            same = name == label and box_iou(true.boxes[index].tolist(), found.boxes[other].tolist()) > 0.6
            (own if same else others).append(distance)
    assert len(own) >= len(scene.objects) / 2
    assert np.median(own) < 0.35 * np.median(others)


def test_an_empty_scene_has_no_true_objects(refiner):
    scene = next(scene for scene in map(draw_test_scene, range(100)) if scene.objects)
    empty = type(scene)(scene.size, (), scene.draw)
    assert describe_true_objects(empty, refiner).region_features.shape == (0, 36)


def test_the_grid_is_the_embedding_of_the_segmenter_with_positions(refiner, tmp_path):
    build_segmenter_grid(refiner.segmenter).save_pretrained(tmp_path)
    grid, pixels = AutoModel.from_pretrained(tmp_path), torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        cells = grid(pixels, output_hidden_states=False, return_dict=True).last_hidden_state
    assert cells.shape == (2, 256, 64)
    expected = refiner.segmenter.get_image_embeddings(pixels)
    torch.testing.assert_close(cells[0, 16 * 3 + 5, :32], expected[0, :, 3, 5])
    assert not torch.equal(cells[0, 0, 32:], cells[0, 1, 32:])
    assert torch.equal(cells[0, :, 32:], cells[1, :, 32:])


def test_colors_are_written_as_the_region_features_say(refiner):
    scenes = [draw_scene("train", number) for number in range(24)]
    described = [(scene, describe_true_objects(scene, refiner)) for scene in scenes]
    writer = ObjectWriter(described[:20])
    assert writer.accuracy(described[20:]) > 0.8
    scene, objects = described[20]
    first = scene.objects[0]
    assert f" {first.shape}: [{objects.boxes[0, 0]:.3f}, " in f" {writer(objects)}"


def test_cells_of_any_picture_have_the_labels_and_the_box_of_their_object():
    scene = next(scene for scene in (draw_scene("train", number) for number in range(50)) if scene.size[0] > 200)
    labels, boxes = label_cells(scene)["shape"], locate_cells(scene)
    assert labels.shape == (16, 16)
    assert np.array_equal(np.isnan(boxes).any(axis=-1), labels == IGNORED)
    thing = max(scene.objects, key=lambda one: one.area)
    x, y = (int(16 * (thing.box[axis] + thing.box[axis + 2]) / 2) for axis in (0, 1))
    shown = thing.mask[int((y + 0.5) * scene.size[1] / 16), int((x + 0.5) * scene.size[0] / 16)]
    assert not shown or labels[y, x] == SHAPES.index(thing.shape)


def test_held_out_questions_name_what_training_scenes_never_show():
    cases = draw_questions(HELD_OUT_SET, per_kind=1, held_out=2, first=20_000)
    assert len(cases) == 8
    assert all(combination(case.question) in HELD_OUT for case in cases)
    assert all(case.number >= 20_000 for case in cases)


def test_shifted_hues_show_what_plain_drawings_do_not():
    counts = count_combinations(40)
    assert len(counts) == len(HELD_OUT)
    plain, tinted = (sum(one[kind] for one in counts.values()) for kind in ("plain", "tinted"))
    assert tinted > 2 * plain


# ---------------------------------------------------------------- rows of the arms


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of a smoke run with the parts that ship."""
    from lyrics.recipes.micro.pipeline.pretrained import write_pretrained

    made = RunFolders(tmp_path_factory.mktemp("controls"), "full", smoke=True, recipe=RECIPE)
    write_pretrained(made)
    return made


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_has_rows(folders, name):
    """With the picture that it sees, and with its objects where it has some. The first arm writes the store."""
    arm = ARMS[name]
    rows = SightRows(DialogueRows("train", 2, 0, 2), see_training_scenes(folders, arm, None))
    row, scene = rows[1], draw_scene("train", 1)
    blocks = row["messages"][0]["content"]
    if arm.sight == "text":
        assert "image" not in row
        assert ": [0." in blocks[0]["text"]
        kinds = {
            block["type"]
            for row in map(rows.__getitem__, range(4))
            for one in row["messages"]
            for block in one["content"]
        }
        assert kinds == {"text"}  # a box block would need an image
        return
    assert (len(np.unique(row["image"])) == 1) == (arm.sight == "blank_view")
    assert ("visual_objects" in row) == (arm.sight != "picture")
    if arm.sight == "oracle":
        assert len(row["visual_objects"]) >= len(scene.objects)


def test_a_store_of_other_scenes_is_refused(folders):
    seen = see_training_scenes(folders, ARMS["full"], None)
    with pytest.raises(ValueError, match=r"does not hold training scene 5000\. Leave --store out"):
        seen(5000)


# ---------------------------------------------------------------- results


def test_intervals_grow_with_the_spread_of_seeds():
    one = as_array("1" * 90 + "0" * 10)
    other = as_array("1" * 70 + "0" * 30)
    assert str(estimate([one])) == "90 ± 6"
    assert estimate([one, one]).half == pytest.approx(estimate([one]).half)
    spread = estimate([one, other])
    assert spread.percent == pytest.approx(80)
    assert spread.half > 100  # two seeds that differ by 20 points say little


def test_a_paired_difference_is_narrower_than_two_intervals():
    before = as_array("01" * 100)
    after = before.copy()
    after[:20:2] = 1
    difference = paired_difference([before], [after])
    assert difference.percent == pytest.approx(5)
    assert 2 < difference.half < 4 < estimate([before]).half
    assert paired_difference([before, before], [after, after]).half == 0


def test_results_are_read_as_they_were_written(tmp_path):
    written = Result("full", 1, {"stage2": {"steps": 2, "seconds_per_step": 1.5}}, {"own": {"color": "0110"}}, 3.0)
    write_result(tmp_path / "full-1.json", written)
    assert read_results(tmp_path) == {"full": [written]}
    assert written.right("own", "color").tolist() == [0, 1, 1, 0]


def made_result(name, seed, bit):
    sets = {"own": KINDS, "second": KINDS, "held_out": ("existence", "color", "shape", "referring")}
    answers = {of_set: dict.fromkeys(kinds, bit * 4) for of_set, kinds in sets.items()}
    return Result(name, seed, {"stage2": {"steps": 800, "seconds_per_step": 2.0}}, answers, 1.0)


def test_the_report_shows_what_was_not_run(tmp_path):
    controls = {"full": [made_result("full", 0, "1")], "oracle": [made_result("oracle", 0, "0")]}
    worth = {
        Cell(one, "free", "frozen", 500).name: [made_result("", 0, bit)] for one, bit in (("all", "1"), ("none", "0"))
    }
    named = {"own": dict.fromkeys(NAMES, "1101"), "second": dict.fromkeys(NAMES, "0000")}
    text = format_report(controls, worth, named)
    own = next(line for line in text.splitlines() if line.startswith(f"| {ARMS['full'].title} |"))
    assert own.count("| 100 ± 24 ") == len(KINDS)
    assert f"| {ARMS['shuffled'].title} | {NOT_RUN} |" in text
    assert f"| {ARMS['oracle'].title} | -100.0 ± 0.0 | -100.0 ± 0.0 |" in text
    assert f"| {EVALUATIONS['shipped'].title} | {NOT_RUN} |" in text
    row = next(line for line in text.splitlines() if line.startswith("| frozen, free queries, 500 rows |"))
    assert row.endswith("| +100.0 ± 0.0 | 1 |")
    assert "wired" not in text
    assert "| no itc |" not in text
    row = next(line for line in text.splitlines() if line.startswith("| own world |"))
    assert row.count("| 75 ± ") == len(NAMES)
    assert f"| own world | {NOT_RUN} |" in format_report(controls, worth, {})
    draw_worth(worth, tmp_path / "worth.png")
    assert Image.open(tmp_path / "worth.png").size[0] > 600


def test_the_report_replaces_what_is_between_its_marks():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert insert(page, "new\n") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="needs one line"):
        insert("no marks", "new")


def test_a_training_stops_when_its_time_is_over(tmp_path):
    arguments = TrainingArguments(str(tmp_path), report_to=[])
    state = TrainerState(global_step=3, max_steps=5)
    for minutes, stops in ((10, False), (-1, True)):
        limit = TimeLimit(minutes)
        limit.on_train_begin(arguments, state, TrainerControl())
        control = limit.on_step_end(arguments, state, TrainerControl())
        assert (control.should_save, control.should_training_stop) == (stops, stops)
        assert limit.last_step == 3
    last = limit.on_step_end(arguments, TrainerState(global_step=5, max_steps=5), TrainerControl())
    assert not last.should_training_stop


# ---------------------------------------------------------------- whole cells


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EVALUATIONS, *ARMS])
def test_a_cell_runs_and_is_not_repeated(folders, name, tmp_path):
    limit = TimeLimit(60)
    file = run_cell(name, 0, folders.out, tmp_path, limit=limit, smoke=True)
    result = json.loads(file.read_text())
    assert {of_set: set(kinds) for of_set, kinds in result["answers"].items()} == {
        "own": set(KINDS),
        "second": set(KINDS),
        "held_out": {"existence", "color", "shape", "referring"},
    }
    if name in ARMS:
        assert result["cost"]["stage2"]["steps"] == 2
    before = file.stat().st_mtime_ns
    run_cell(name, 0, folders.out, tmp_path, limit=limit, smoke=True)
    assert file.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_cell_that_ran_out_of_time_is_resumed(tmp_path):
    with pytest.raises(OutOfTimeError, match=r"was not started in time\. Run it again"):
        run_cell("refiner_alone", 0, tmp_path, tmp_path / "results", limit=TimeLimit(-1), smoke=True)
    assert not (tmp_path / "results").exists()
    run_cell("refiner_alone", 0, tmp_path, tmp_path / "results", limit=TimeLimit(60), smoke=True)
    assert (tmp_path / "results" / "refiner_alone-0.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell",
    [Cell("all", "free", "frozen", 500), Cell("none", "wired", "tuned", 2000), Cell("no_itm", "free", "tuned", 500)],
)
def test_a_first_stage_is_measured(tmp_path, cell):
    file = run_worth_cell(cell, 0, tmp_path, tmp_path / "results", limit=TimeLimit(60), smoke=True)
    result = json.loads(file.read_text())
    assert set(result["answers"]) == {"own"}
    assert (result["cost"]["stage1"]["steps"] is None) == (cell.losses == "none")


def test_objects_are_named_by_what_their_cells_show():
    """A network that knows the labels of all cells names everything, and one that answers the next name nothing."""
    scene, shift = draw_test_scene(7), 0

    def know(pixel_values):
        assert pixel_values.shape == (1, 3, 48, 48)
        logits = {}
        for kind, labels in label_cells(scene).items():
            names = torch.from_numpy(labels + shift) % len(NAMES[kind])
            logits[kind] = torch.nn.functional.one_hot(names, len(NAMES[kind])).permute(2, 0, 1)[None].float()
        return logits

    bits = name_objects(know, lambda number: scene, range(1))
    characters = sum(thing.character is not None for thing in scene.objects)
    assert bits == {kind: "1" * len(scene.objects) for kind in NAMES} | {"character": "1" * characters}
    shift = 1
    assert set("".join(name_objects(know, lambda number: scene, range(1)).values())) == {"0"}
