"""The refiner behind a processor: its recorded identity, where it lies, pickles, and threads."""

import json
import pickle
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE, LyricsProcessor
from lyrics.modeling_lyrics import LyricsVisualRefiner, provenance_lyrics

from ..threads import run_at_once

PROMPT = "<image> What is this?"


@pytest.fixture(scope="module")
def scene():
    return Image.open(SCENE_PICTURE)


@pytest.fixture(scope="module")
def shipped():
    return LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)


@pytest.fixture(scope="module")
def seen(shipped, scene):
    """The objects that the shipped refiner finds."""
    return shipped.refine(scene)[0]


@pytest.fixture
def copied(tmp_path):
    """A copy of the shipped checkpoint, to be changed."""
    return shutil.copytree(MICRO_CHECKPOINT, tmp_path / "copied")


def edit(path, **values):
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# ---------------------------------------------------------------------------------------------------- identity


@pytest.mark.parametrize("change", ["weight", "setting"])
def test_what_was_changed_is_noticed_when_weights_are_loaded(copied, scene, change):
    if change == "weight":
        path = copied / "refiner" / "model.safetensors"
        weights = load_file(path)
        name = next(name for name in sorted(weights) if name.endswith("weight"))
        weights[name] = weights[name] + 0.1
        save_file(weights, path, {"format": "pt"})
    else:
        edit(copied / "refiner" / "config.json", box_threshold=0.3)
    processor = LyricsProcessor.from_pretrained(copied)
    with pytest.raises(ValueError, match=r"refiner has the fingerprint \w+, but 44b13b5\w+ is recorded"):
        processor(images=scene, text=PROMPT)
    with pytest.raises(ValueError, match=r"is recorded in its config\.json"):
        LyricsVisualRefiner.from_pretrained(copied, subfolder="refiner")
    edit(copied / "refiner" / "config.json", fingerprint=None)
    assert LyricsProcessor.from_pretrained(copied).refine(scene)


def test_settings_of_a_later_release_are_no_change(copied, scene, monkeypatch, caplog):
    """A later Transformers may add settings to the parts' configurations, which changes every fingerprint."""
    monkeypatch.setattr(provenance_lyrics, "BEHAVIOUR_VERSION", 2)  # stands for what changes the fingerprint
    settings = json.loads((copied / "refiner" / "config.json").read_text())
    del settings["detector_config"]["query_dim"]
    (copied / "refiner" / "config.json").write_text(json.dumps(settings))
    assert LyricsProcessor.from_pretrained(copied).refine(scene)
    assert "further settings" in caplog.text


def test_settings_given_by_the_caller_are_no_change(scene):
    processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT, refiner_kwargs={"box_threshold": 0.99})
    assert processor.refiner_config.fingerprint is None
    assert not processor.refine(scene)[0].labels


def test_the_refiner_of_another_model_is_refused(copied, shipped, scene):
    other = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).refiner
    other.config.box_threshold = 0.3
    shutil.rmtree(copied / "refiner")
    other.save_pretrained(copied / "refiner")
    processor = LyricsProcessor.from_pretrained(copied)
    with pytest.raises(ValueError, match="belongs to another model"):
        processor(images=scene, text=PROMPT)
    assert "region_features" in processor.attach_refiner(other)(images=scene, text=PROMPT)


def test_a_refiner_that_was_deleted_is_missed_when_objects_are_needed(copied, shipped, scene, seen):
    shutil.rmtree(copied / "refiner")
    processor = LyricsProcessor.from_pretrained(copied)
    assert processor(text="Nothing to see.")["input_ids"]
    assert "region_features" in processor(images=scene, text=PROMPT, visual_objects=seen)
    for again in (processor, pickle.loads(pickle.dumps(processor))):
        with pytest.raises(ValueError, match=r"no refiner: there is none in .*copied/refiner"):
            again(images=scene, text=PROMPT)
    assert "region_features" in processor.attach_refiner(shipped.refiner)(images=scene, text=PROMPT)
    skipped = LyricsProcessor.from_pretrained(copied, refiner=False)
    assert "region_features" not in skipped(images=scene, text=PROMPT)


def test_a_subfolder_keeps_its_refiner(scene, seen, tmp_path):
    shutil.copytree(MICRO_CHECKPOINT, tmp_path / "models" / "micro")
    processor = LyricsProcessor.from_pretrained(tmp_path, subfolder="models/micro")
    assert processor.refine(scene)[0] == seen
    assert pickle.loads(pickle.dumps(processor)).refine(scene)[0] == seen
    (tmp_path / "models" / "micro" / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"models/micro/tokenizer\.json"):
        LyricsProcessor.from_pretrained(tmp_path, subfolder="models/micro")


# ---------------------------------------------------------------------------------------------------- pickles


@pytest.mark.parametrize("change", ["attached", "threshold", "weight", "dtype"])
def test_a_pickle_never_exchanges_the_refiner(shipped, change):
    processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
    if change == "attached":
        processor.attach_refiner(shipped.refiner)
    elif change == "threshold":
        processor.refiner.config.box_threshold = 0.9
    elif change == "weight":
        next(processor.refiner.parameters()).data.add_(0.1)
    else:
        processor.refiner.to(torch.bfloat16)
    with pytest.raises(ValueError, match="attached" if change == "attached" else "changed after it was loaded"):
        pickle.dumps(processor)


def test_a_pickle_keeps_the_dtype_that_was_set(scene):
    processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
    assert processor.refiner.dtype == torch.float32
    processor.to(dtype=torch.bfloat16)
    again = pickle.loads(pickle.dumps(processor))
    assert again.refiner.dtype == torch.bfloat16
    assert again.refine(scene) == processor.refine(scene)


# ---------------------------------------------------------------------------------------------------- threads


def test_threads_share_one_refiner(scene, seen):
    processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
    found = run_at_once(lambda _: (processor.refiner, processor.refine(scene)[0]), 6)
    assert all(refiner is processor.refiner and objects == seen for refiner, objects in found)
    several = run_at_once(lambda _: LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).refine(scene)[0], 4)
    assert all(objects == seen for objects in several)


def test_threads_with_different_truncation(shipped, scene, seen):
    """A fast tokenizer keeps the truncation of its last call."""
    text = "<image>" + " word" * 200
    limits = [None, 60, 100, 140, None, 80]

    def lengths(index):
        options = {} if limits[index] is None else {"truncation": True, "max_length": limits[index]}
        return {
            len(shipped(images=scene, text=text, visual_objects=seen, **options)["input_ids"][0]) for _ in range(30)
        }

    whole = lengths(0)
    assert run_at_once(lengths, len(limits)) == [whole if limit is None else {limit} for limit in limits]
