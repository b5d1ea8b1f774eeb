"""Preference tuning with TRL's trainer: a right answer over a wrong one about the same image."""

import json

import numpy as np
import pytest
import torch

from lyrics.assets import ShapePairs, random_parts
from lyrics.datasets_lyrics.open_data import open_rows
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.trainers import BadRowError
from lyrics.trainers.dpo_trainer import LyricsDPOConfig, LyricsDPOTrainer, PreferenceRows, to_dataset

from ..processing_lyrics.test_language_model_templates import processor_of
from .two_ranks import history


def say(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dpo")
    model, processor = random_parts(seed=1)
    model.save_pretrained(folder / "base")
    model = LyricsForConditionalGeneration.from_pretrained(folder / "base")
    args = LyricsDPOConfig(
        output_dir=str(folder / "run"),
        per_device_train_batch_size=4,
        max_steps=6,
        learning_rate=3e-3,
        lora_dropout=0.0,
        logging_steps=1,
        save_steps=3,
        gradient_checkpointing=False,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    pairs = [{**row, "chosen": say("Yes."), "rejected": say("No.")} for row in map(ShapePairs(8).__getitem__, range(8))]
    trainer = LyricsDPOTrainer(model, args, to_dataset(pairs), None, processor)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    trainer.save_model()
    return folder, trainer, before


def test_the_right_answer_is_preferred(tuned):
    """And only the LoRA weights of the language model change."""
    _, trainer, before = tuned
    log = history(trainer)
    assert log[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # ln 2: tuned and reference are the same
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    assert log[-1]["rewards/accuracies"] == 1
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (".lora_" not in name), name


def test_it_is_saved_as_an_adapter_of_its_base(tuned):
    folder, trainer, _ = tuned
    assert (folder / "run" / "checkpoint-6" / "manifest.json").is_file()
    assert not (folder / "run" / "refiner").exists()
    model = LyricsForConditionalGeneration.from_pretrained(folder / "run")
    loaded = {f"base_model.model.{name}": one for name, one in model.state_dict().items()}
    tuned_weights = {name: one for name, one in trainer.model.state_dict().items() if ".lora_" in name}
    assert tuned_weights
    assert all(torch.equal(one, loaded[name]) for name, one in tuned_weights.items())


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_images_of_a_file_reach_the_model(ending, tmp_path):
    """As paths that stay below the folder of the file, or as bytes; a bad path is named."""
    rows = [ShapePairs(2)[index] for index in range(2)]
    for index, row in enumerate(rows):
        row["images"][0].save(tmp_path / f"{index}.png")
    named = [{**row, "images": [f"{index}.png"]} for index, row in enumerate(rows)]
    if ending == "jsonl":
        (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, named)))
    else:
        to_dataset(rows).to_parquet(tmp_path / "pairs.parquet")
    model, processor = random_parts(seed=1)
    options = {"max_steps": 1, "per_device_train_batch_size": 2, "report_to": [], "use_cpu": True, "bf16": False}
    args = LyricsDPOConfig(output_dir=str(tmp_path / "run"), save_strategy="no", lora_dropout=0.0, **options)
    dataset = to_dataset(open_rows(tmp_path / f"pairs.{ending}"))
    trainer = LyricsDPOTrainer(model, args, dataset, None, processor)
    assert isinstance(trainer.train_dataset, PreferenceRows)
    from_file = next(iter(trainer.get_train_dataloader()))
    trainer.train_dataset = to_dataset(rows)
    drawn = next(iter(trainer.get_train_dataloader()))
    for name in ("input_ids", "pixel_values"):
        assert torch.equal(from_file[name], drawn[name])


def test_a_bad_picture_is_named_with_its_row(processor, tmp_path):
    pairs = {"prompt": "What?", "chosen": "A cup.", "rejected": "A dog."}
    ShapePairs(1)[0]["images"][0].save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows = [{**pairs, "images": [str(tmp_path / name)]} for name in ("good.png", "bad.png")]
    read = PreferenceRows(to_dataset(rows), processor)
    assert len(read[0]["images"]) == 1
    with pytest.raises(BadRowError, match=r"Row 1 cannot be used: .*bad\.png"):
        read[1]


def test_a_prompt_that_the_chat_template_refuses_is_named_with_its_row():
    image = ShapePairs(1)[0]["images"][0]
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it red?"}]
    rows = to_dataset([{"images": [image], "prompt": told, "chosen": say("Yes."), "rejected": say("No.")}])
    with pytest.raises(BadRowError, match=r"Row 0 cannot be used: .* System role not supported"):
        PreferenceRows.wrap(rows, processor_of("gemma2"))[0]


@pytest.mark.parametrize("image", ["images", "image"])
def test_marks_in_a_prompt_are_places(processor, image):
    """Marks in a prompt become images, as in the second stage; a prompt without marks gets its images from TRL."""
    picture = ShapePairs(1)[0]["images"][0]
    answers = {"chosen": say("Yes."), "rejected": say("No.")}
    given = {image: [picture] if image == "images" else picture}
    rows = [
        {"prompt": [{"role": "user", "content": text}], **answers, **given} for text in ("Here: <image>\nRed?", "Red?")
    ]
    read = PreferenceRows(to_dataset(rows), processor)
    blocks = [{"type": "text", "text": "Here: "}, {"type": "image"}, {"type": "text", "text": "Red?"}]
    assert read[0]["prompt"] == [{"role": "user", "content": blocks}]
    assert read[1]["prompt"] == [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Red?"}]}]
    assert len(read[0]["images"]) == 1


def test_images_in_the_blocks_of_a_prompt(tmp_path):
    """They reach the model, also where rows of text alone come first."""
    ShapePairs(1)[0]["images"][0].save(tmp_path / "a.png")
    answers = {"chosen": say("Yes."), "rejected": say("No.")}
    blocks = [{"type": "image", "path": "a.png"}, {"type": "text", "text": "Red?"}]
    rows = [{"prompt": [{"role": "user", "content": content}], **answers} for content in (blocks[1:], blocks)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model, processor = random_parts(seed=1)
    options = {"max_steps": 1, "per_device_train_batch_size": 2, "report_to": [], "use_cpu": True, "bf16": False}
    args = LyricsDPOConfig(output_dir=str(tmp_path / "run"), save_strategy="no", lora_dropout=0.0, **options)
    trainer = LyricsDPOTrainer(model, args, to_dataset(open_rows(tmp_path / "pairs.jsonl")), None, processor)
    assert [len(trainer.train_dataset[index]["images"]) for index in range(2)] == [0, 1]
    assert trainer.train().training_loss == pytest.approx(np.log(2), abs=1e-3)


def test_what_cannot_be_trained_on_is_refused():
    with pytest.raises(ValueError, match=r"no 'chosen' and no 'rejected': preferences need .* columns are 'prompt'"):
        to_dataset([{"prompt": "What?"}])
    for prompt in (None, ["What?"], [{"role": "user"}]):  # told with its row when it is read
        assert len(to_dataset([{"prompt": prompt, "chosen": "A cup.", "rejected": "A dog."}])) == 1
    with pytest.raises(ValueError, match="train_sampling_strategy must be one of"):
        LyricsDPOConfig(output_dir="run", train_sampling_strategy="group_by_length", bf16=False)
