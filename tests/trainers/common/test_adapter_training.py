"""Training goes on with the adapter that a model has: by directory, by loaded model, and as a `PeftModel`."""

import json
import re

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from lyrics import MICRO_CHECKPOINT
from lyrics.assets import ShapeChats, ShapePairs
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.trainers import LyricsSFTConfig, LyricsSFTTrainer
from lyrics.trainers.common.adapter_training import load_adapted_model
from lyrics.trainers.common.run_settings import compare_settings, describe_settings
from lyrics.trainers.dpo_trainer import LyricsDPOConfig, LyricsDPOTrainer, to_dataset
from lyrics_cli.main import main

from ..two_ranks import history

LORA = {"target_modules": r".*language_model\..*\.(q_proj|v_proj)"}
QUICK = {"per_device_train_batch_size": 2, "max_steps": 2, "learning_rate": 1e-2, "logging_steps": 1, "bf16": False}
QUICK |= {"report_to": [], "use_cpu": True, "disable_tqdm": True, "gradient_checkpointing": False, "lora_dropout": 0.0}
PARTS = {"mqformer", "language_projection", "lora_A", "lora_B"}


def chats():
    """Conversations without stored objects, whose regions have another width than those of the micro model."""
    rows = ShapeChats(4)
    return [{"images": rows[index]["images"], "messages": rows[index]["messages"]} for index in range(4)]


def build(kind, model, folder, **changes):
    """Build a trainer of the kind `sft` or `dpo` on the micro model or one of its adapters."""
    processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
    peft_config = changes.pop("peft_config", None)
    classes = {"sft": (LyricsSFTTrainer, LyricsSFTConfig), "dpo": (LyricsDPOTrainer, LyricsDPOConfig)}
    trainer_class, config_class = classes[kind]
    args = config_class(str(folder), **QUICK | {"save_strategy": "no"} | changes)
    rows = chats() if kind == "sft" else to_dataset(ShapePairs(4))
    return trainer_class(model, args, rows, None, processor, peft_config=peft_config)


def adapter_weights(trainer):
    """Return the weights of the trained adapter under the names of an adapter's file."""
    return {
        re.sub(r"\.(modules_to_save\.)?default\b", "", name): one.detach().clone()
        for name, one in trainer.model.named_parameters()
        if ".default." in name
    }


def trained_parts(trainer):
    """Return the parts with gradients; a part of the adapter's reference would have its own name."""
    names = [name for name, one in trainer.model.named_parameters() if one.requires_grad]
    assert all(".default." in name for name in names)
    return {re.search(r"(\w+)\.(modules_to_save\.)?default\.", name)[1] for name in names}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """Directory of an adapter of the shipped micro model, trained with its MQ-Former and projection."""
    folder = tmp_path_factory.mktemp("adapter") / "A"
    trainer = build("sft", str(MICRO_CHECKPOINT), folder)
    trainer.train()
    trainer.save_model()
    return folder


FORMS = {
    "path": lambda folder: folder,
    "name": str,
    "loaded": LyricsForConditionalGeneration.from_pretrained,
    "PeftModel": lambda folder: PeftModel.from_pretrained(
        LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT), folder, "mine"
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_training_goes_on_with_the_adapter(adapter, tmp_path, kind, form):
    """Its weights are those of the directory, it learns, and it is saved as an adapter of the same base model."""
    saved = load_file(adapter / "adapter_model.safetensors")
    trainer = build(kind, FORMS[form](adapter), tmp_path / "B")
    before = adapter_weights(trainer)
    assert before.keys() == saved.keys()
    assert all(torch.equal(one, saved[name]) for name, one in before.items())
    parts = PARTS if kind == "sft" else {"lora_A", "lora_B"}
    assert trained_parts(trainer) == parts
    trainer.train()
    assert trained_parts(trainer) == parts
    after = adapter_weights(trainer)
    changed = {name for name, one in after.items() if not torch.equal(one, before[name])}
    assert {name for name in after if ".lora_B" in name} <= changed
    assert any("mqformer" in name for name in changed) == (kind == "sft")
    assert kind == "sft" or all(".lora_" in name for name in changed)
    if kind == "dpo":  # the reference is the adapted model as it was: ln 2
        assert history(trainer)[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    trainer.save_model()
    assert not [path.name for path in (tmp_path / "B").iterdir() if path.is_dir() and path.name != "mqformer_tokenizer"]
    details = json.loads((tmp_path / "B" / "lyrics_adapter.json").read_text())
    assert details["base_model"] == str(MICRO_CHECKPOINT)
    assert sorted(details["trained_parts"]) == ["language_projection", "mqformer"]
    written = load_file(tmp_path / "B" / "adapter_model.safetensors")
    assert all(torch.equal(one, written[name]) for name, one in adapter_weights(trainer).items())
    LyricsForConditionalGeneration.from_pretrained(tmp_path / "B")


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_continued_run_resumes(adapter, tmp_path, kind):
    runs = []
    for resume in (None, str(tmp_path / "B" / "checkpoint-1")):
        trainer = build(kind, str(adapter), tmp_path / "B", save_strategy="steps", save_steps=1)
        trainer.train(resume)
        runs.append((adapter_weights(trainer), [line["loss"] for line in history(trainer)]))
    assert runs[0][1] == runs[1][1]
    assert all(torch.equal(one, runs[1][0][name]) for name, one in runs[0][0].items())


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_the_command_line_goes_on_with_the_adapter_and_its_base_models_refiner(adapter, tmp_path, kind, capsys):
    """The images of the rows come without objects."""
    rows = chats() if kind == "sft" else list(to_dataset(ShapePairs(4)))
    for index, row in enumerate(rows):
        row["images"][0].save(tmp_path / f"{index}.png")
    lines = [json.dumps({**row, "images": [f"{index}.png"]}) for index, row in enumerate(rows)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    words = [kind, "--model", str(adapter), "--train_data", str(tmp_path / "rows.jsonl"), "--bf16", "no"]
    words += ["--output_dir", str(tmp_path / "B"), "--max_steps", "1", "--learning_rate", "0", "--save_strategy", "no"]
    words += ["--use_cpu", "true", "--report_to", "none", "--per_device_train_batch_size", "2"]
    assert main(words) == 0
    saved, written = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, tmp_path / "B"))
    assert saved.keys() == written.keys()
    assert all(torch.equal(one, written[name]) for name, one in saved.items())
    processor = LyricsProcessor.from_pretrained(tmp_path / "B")
    assert processor.has_refiner
    assert not processor.refiner_loaded
    assert len(processor.refine(rows[0]["images"])) == 1


def test_a_part_that_the_adapter_lacks_is_added(tmp_path):
    """Whatever the adapter's name is, the arguments say which parts are trained in full."""
    base = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT)
    for name in ("default", "mine"):
        model = get_peft_model(base, LoraConfig(**LORA), adapter_name=name)
        trainer = build("sft", model, tmp_path / name)
        assert trainer.model is model
        assert trained_parts(trainer) == PARTS
        base = model.unload()
    trainer = build("sft", MICRO_CHECKPOINT, tmp_path, peft_config=LoraConfig(**LORA))
    assert trained_parts(trainer) == PARTS
    trainer = build("sft", MICRO_CHECKPOINT, tmp_path, peft_config=LoraConfig(**LORA), freeze=["mqformer"])
    assert trained_parts(trainer) == PARTS - {"mqformer"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_r": 16}, r"lora_r=16 contradicts the adapter .*, whose r is 8"),
        ({"lora_alpha": 7}, r"lora_alpha=7 contradicts the adapter"),
        ({"use_lora": False}, r"has an adapter, and the arguments train no adapter"),
        ({"train": ["language_model"]}, r"has an adapter, and the arguments train no adapter"),
        ({"peft_config": LoraConfig(**LORA)}, r"has an adapter, and peft_config describes another one"),
    ],
)
@pytest.mark.parametrize("form", ["path", "loaded"])
def test_contradictions_are_errors(adapter, tmp_path, form, options, message):
    with pytest.raises(ValueError, match=message):
        build("sft", FORMS[form](adapter), tmp_path, **options)


def test_contradictions_of_a_peft_config_are_errors(tmp_path):
    config = LoraConfig(**LORA, modules_to_save=["vision_model"])
    with pytest.raises(ValueError, match=r"trains the vision_model in full .* and the arguments do not"):
        build("sft", MICRO_CHECKPOINT, tmp_path, peft_config=config)
    with pytest.raises(ValueError, match="The arguments train no adapter"):
        build("sft", MICRO_CHECKPOINT, tmp_path, peft_config=LoraConfig(**LORA), use_lora=False)


def test_several_adapters_are_an_error(tmp_path):
    model = get_peft_model(LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT), LoraConfig(**LORA))
    model.add_adapter("other", LoraConfig(**LORA))
    with pytest.raises(ValueError, match=r"has several adapters \(default, other\)"):
        build("sft", model, tmp_path)


def test_no_adapter_is_found_where_there_is_none(tmp_path):
    args = LyricsSFTConfig(str(tmp_path), bf16=False)
    assert load_adapted_model(str(MICRO_CHECKPOINT), args) is None


def test_a_run_with_another_adapter_is_another_run(tmp_path):
    """As `--resume` compares the settings of a checkpoint with its own."""

    def settings(**options):
        return describe_settings(build("sft", MICRO_CHECKPOINT, tmp_path, **options))

    own, given = settings(), settings(peft_config=LoraConfig(**LORA))
    assert compare_settings(own, settings()) == ""
    assert compare_settings(given, settings(peft_config=LoraConfig(**LORA))) == ""
    assert 'lora_targets is ["q_proj", "k_proj", "v_proj"] there and ["q_proj"] here' in compare_settings(
        own, settings(lora_targets=["q_proj"])
    )
    assert "peft_config.target_modules is" in compare_settings(own, given)
    rslora = compare_settings(given, settings(peft_config=LoraConfig(**LORA, use_rslora=True)))
    assert rslora == "peft_config.use_rslora is false there and true here"
