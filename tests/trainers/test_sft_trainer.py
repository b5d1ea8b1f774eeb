"""LyricsSFTTrainer: trained parts, learning, adapters, resumption, evaluation, and several processes."""

import copy
import json
import re
import shutil

import pytest
import torch

from lyrics.processing_lyrics import LyricsProcessor
from lyrics.trainers import BadRowError, LyricsSFTConfig, LyricsSFTTrainer

from ..sft_parts import SYSTEM, build_chat, build_chats, build_model, build_processor, say
from .launch import run_two
from .sft_ranks import build_trainer, mixed_rows, weights
from .two_ranks import history


def parts_of(model):
    """Return the weights by part, LoRA apart, under their names in the model without PEFT."""
    parts = {"vision_model": {}, "mqformer": {}, "language_projection": {}, "language_model": {}, "lora": {}}
    for name, tensor in model.state_dict().items():
        if ".original_module." in name:
            continue
        plain = re.sub(r"^base_model\.model\.|\.modules_to_save\.default|\.base_layer", "", name)
        part = plain.removeprefix("model.").split(".")[0].replace("lm_head", "language_model")
        parts["lora" if ".lora_" in name else part][plain] = tensor
    return parts


UNUSED = ("embed", "mqformer.layers.1.text_mlp", "vision_model.encoder.layers.1")  # rows of tables; after the last use
TRAINED = {
    "default": ({}, {"mqformer", "language_projection", "lora"}),
    "published": ({"train_mqformer": False}, {"language_projection", "lora"}),
    "lora alone": ({"freeze": ["mqformer", "projection"]}, {"lora"}),
    "vision as well": ({"train": ["vision_model"]}, {"vision_model", "mqformer", "language_projection", "lora"}),
    "connector alone": ({"use_lora": False}, {"mqformer", "language_projection"}),
    "all of the language model": (
        {"train_language_model": True, "freeze": ["mqformer"]},
        {"language_projection", "language_model"},
    ),
}


@pytest.mark.parametrize("case", TRAINED)
def test_only_the_chosen_parts_are_trained(tmp_path, case):
    """Each matrix of a trained part changes; all other parts stay the same, bit for bit."""
    options, trained = TRAINED[case]
    base = build_model(std=0.15)
    before = parts_of(base)
    trainer = build_trainer(tmp_path, model=copy.deepcopy(base), rows=build_chats(8), max_steps=2, **options)
    modes = []
    trainer.model.get_submodule(
        "base_model.model.model.vision_model" if trained & {"lora"} else "model.vision_model"
    ).register_forward_hook(lambda module, *_: modes.append(module.training))
    trainer.train()
    after = parts_of(trainer.model)
    for part, tensors in before.items():
        for name, tensor in tensors.items():
            same = torch.equal(tensor, after[part][name])
            if part not in trained:
                assert same, name
            elif tensor.dim() > 1 and not any(word in name for word in UNUSED):
                assert not same, name
    assert bool(after["lora"]) == ("lora" in trained)
    assert all(".language_model." in name and ".self_attn." in name for name in after["lora"])
    assert modes
    assert not any(modes) or "vision_model" in trained


def test_trained_parameters_are_logged(tmp_path, caplog):
    with caplog.at_level("INFO", logger="lyrics"):
        build_trainer(tmp_path)
    for part in ("vision_model", "mqformer", "language_projection", "language_model", "lm_head"):
        assert re.search(rf"{part} +[\d,]+ of [\d,]+", caplog.text)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Folder with an adapter that was trained until it knows ten samples by heart, the rows, and the trainer."""
    folder = tmp_path_factory.mktemp("learned")
    base = build_model(std=0.1)
    base.save_pretrained(folder / "base")
    build_processor().save_pretrained(folder / "base")
    rows = []
    for seed in range(10):
        row = build_chat(seed)
        row["messages"] = [SYSTEM, say("user", None, "Which?"), say("assistant", f"{seed * 37 % 100:02}")]
        rows.append(row)
    trainer = build_trainer(
        folder / "adapter",
        rows=rows,
        model=str(folder / "base"),
        per_device_train_batch_size=10,
        max_steps=150,
        learning_rate=5e-3,
        save_strategy="no",
        logging_steps=50,
    )
    trainer.train()
    trainer.save_model()
    return folder, rows, trainer


def answer(model, processor, rows):
    asked = rows[0]["messages"][1]["content"][1:]
    inputs = processor.apply_chat_template(
        [[SYSTEM, {"role": "user", "content": [{"type": "image", "image": row["images"][0]}, *asked]}] for row in rows],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"visual_objects": [one for row in rows for one in row["visual_objects"]], "padding": True},
    )
    ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]


def test_ten_samples_are_overfitted(learned):
    """The same question about ten images, so that only the images tell them apart; in a batch and one by one."""
    _, rows, trainer = learned
    model, processor = trainer.model.eval(), trainer.processing_class
    expected = [row["messages"][-1]["content"][0]["text"] for row in rows]
    assert history(trainer)[-1]["mean_token_accuracy"] == 1
    assert answer(model, processor, rows) == expected
    assert [answer(model, processor, [row])[0] for row in rows] == expected


def test_one_directory_holds_the_tuned_model(learned):
    """The tuned model in one call, by class and by AutoModel; merged; saved and loaded again: the same logits."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from lyrics.conversion import merge_adapter
    from lyrics.modeling_lyrics import LyricsForConditionalGeneration

    folder, rows, trainer = learned
    adapter = folder / "adapter"
    processor = AutoProcessor.from_pretrained(adapter)
    assert isinstance(processor, LyricsProcessor)
    batch = trainer.collator(rows)
    del batch["samples"]
    merged, _ = merge_adapter(adapter)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    merged.save_pretrained(folder / "merged")
    models = {
        "class": LyricsForConditionalGeneration.from_pretrained(adapter),
        "auto": AutoModelForImageTextToText.from_pretrained(adapter),
        "merged": merged,
        "reloaded": LyricsForConditionalGeneration.from_pretrained(folder / "merged"),
    }
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).logits
        for name, model in models.items():
            logits = model.eval()(**batch).logits
            torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5, msg=name)
    assert answer(models["reloaded"], processor, rows[:3]) == answer(trainer.model, processor, rows[:3])


def test_an_adapter_describes_itself(learned):
    import json

    folder, _, trainer = learned
    details = json.loads((folder / "adapter" / "lyrics_adapter.json").read_text())
    assert details["base_model"] == str(folder / "base")
    assert sorted(details["trained_parts"]) == ["language_projection", "mqformer"]
    assert details["arguments"]["lora_r"] == trainer.args.lora_r == 8
    files = {path.name for path in (folder / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "processor_config.json"} <= files
    assert not {"refiner", "model.safetensors"} & files


@pytest.mark.parametrize("part", ["mqformer", "language_projection"])
def test_an_adapter_without_its_connector_is_refused(learned, tmp_path, part):
    """By `from_pretrained` and by `merge_adapter`; the error names the missing part."""

    from safetensors.torch import load_file, save_file

    from lyrics.conversion import merge_adapter
    from lyrics.modeling_lyrics import LyricsForConditionalGeneration

    shutil.copytree(learned[0] / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = {name: one for name, one in load_file(file).items() if f".{part}." not in name}
    save_file(tensors, file, metadata={"format": "pt"})
    for load in (LyricsForConditionalGeneration.from_pretrained, merge_adapter):
        with pytest.raises(ValueError, match=rf"lacks its {part}, which was trained with it"):
            load(tmp_path / "adapter")


def test_another_base_model_is_refused(learned, tmp_path):

    from lyrics.conversion import merge_adapter

    folder = learned[0]
    other = build_model(seed=3, std=0.15)
    other.save_pretrained(tmp_path / "other")
    build_processor().save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"was trained on .*base.*, and this model has other weights"):
        other.load_adapter(str(folder / "adapter"))
    with pytest.raises(ValueError, match="this model has other weights"):
        merge_adapter(folder / "adapter", base_model=str(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"is no adapter: it has no adapter_config\.json"):
        merge_adapter(tmp_path / "other")
    shutil.copytree(folder / "adapter", tmp_path / "homeless")
    details = json.loads((tmp_path / "homeless" / "lyrics_adapter.json").read_text())
    (tmp_path / "homeless" / "lyrics_adapter.json").write_text(json.dumps(details | {"base_model": ""}))
    with pytest.raises(ValueError, match="was trained on a model in memory: say where that model was saved"):
        merge_adapter(tmp_path / "homeless")


@pytest.mark.parametrize(("strategy", "workers"), [("random", 1), ("group_by_length", 0)])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, strategy, workers):
    """Losses, gradients, learning rate and data, bit for bit, with dropout and augmentation."""
    settings = {"lora_dropout": 0.2, "max_steps": 5, "flip": 0.5, "train_sampling_strategy": strategy}
    settings |= {"dataloader_num_workers": workers}
    settings |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    whole = build_trainer(tmp_path, **settings)
    whole.train()
    torch.manual_seed(99)
    resumed = build_trainer(tmp_path, **settings)
    resumed.train(str(tmp_path / "checkpoint-2"))
    logs = [[line | {"num_tokens": None} for line in history(trainer)] for trainer in (resumed, whole)]
    assert logs[0] == logs[1]  # but for the tokens, which TRL counts from zero again
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(whole).items())


def test_rows_are_grouped_by_length(tmp_path):
    """With little padding, every row once, and another order in each epoch."""
    rows = [build_chat(seed, pictures=0, turns=1 + seed % 4) for seed in range(96)]
    shares, orders = {}, {}
    for strategy in ("random", "group_by_length"):
        trainer = build_trainer(tmp_path, rows=rows, train_sampling_strategy=strategy)
        loader = trainer.get_train_dataloader()
        for epoch in range(2):
            batches = list(loader)
            orders[strategy, epoch] = [int(name) for batch in batches for name in batch["samples"]]
            masks = [batch["attention_mask"] for batch in batches]
            shares[strategy, epoch] = sum(mask.sum().item() for mask in masks) / sum(mask.numel() for mask in masks)
    assert shares["random", 0] < 0.8
    assert min(shares["group_by_length", epoch] for epoch in range(2)) > 0.88
    assert all(sorted(order) == list(range(96)) for order in orders.values())
    assert orders["group_by_length", 0] != orders["group_by_length", 1]


def test_rows_for_evaluation_stay_in_their_order(tmp_path):
    """Although rows for training are grouped by length, which Transformers would want of these too."""
    settings = {"train_sampling_strategy": "group_by_length", "eval_strategy": "steps", "eval_steps": 1, "max_steps": 1}
    trainer = build_trainer(tmp_path, eval_rows=build_chats(5), save_strategy="no", **settings)
    batches = list(trainer.get_eval_dataloader())
    assert [name for batch in batches for name in batch["samples"]] == list("01234")
    trainer.train()
    assert any("eval_loss" in line for line in trainer.state.log_history)
    assert trainer.args.train_sampling_strategy == "group_by_length"


def test_unusable_rows_are_replaced_or_raised(tmp_path, caplog):
    """They are named and counted; TRL raises no error about truncation."""
    from transformers.utils import logging

    logging.enable_propagation()
    rows = build_chats(8)
    rows[3] = build_chat(3, pictures=40)
    with pytest.raises(BadRowError, match=r"Row 3 cannot be used: The conversation takes \d+ tokens at the least"):
        build_trainer(tmp_path, rows=rows, max_steps=4).train()
    trainer = build_trainer(tmp_path, rows=rows, max_steps=4, on_bad_row="replace")
    trainer.train()
    assert "Row 3 cannot be used: The conversation takes" in caplog.text
    assert history(trainer)[-1]["replaced_rows"] == 2  # of two epochs


def test_gradient_checkpointing_and_accumulation_change_nothing(tmp_path):
    """Every token has the same weight in a batch of several micro-batches."""
    logs = []
    pieces = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    for options in ({}, {"gradient_checkpointing": True}, pieces):
        trainer = build_trainer(tmp_path / str(len(logs)), max_steps=2, save_strategy="no", **options)
        trainer.train()
        logs.append(history(trainer))
    for log in logs[1:]:
        for mine, theirs in zip(log, logs[0], strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
            assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


def test_the_head_computes_labeled_positions_alone(tmp_path):
    """On a CPU too, with the loss, the gradients and the metrics of TRL's own way."""
    trainer = build_trainer(tmp_path, rows=build_chats(4))
    model, batch = trainer.model, trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    widths, results = [], []
    model.get_submodule("base_model.model.model").register_forward_hook(
        lambda module, args, outputs: widths.append(outputs.last_hidden_state.shape[:2])
    )
    for compute in (trainer.compute_loss, super(LyricsSFTTrainer, trainer).compute_loss):
        model.zero_grad()
        loss = compute(model, dict(batch))
        loss.backward()
        gradients = {name: one.grad for name, one in model.named_parameters() if one.requires_grad}
        metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
        results.append((loss.detach(), gradients, metrics["entropy"], metrics["mean_token_accuracy"]))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    assert widths == [(1, (batch["labels"][:, 1:] != -100).sum()), batch["labels"].shape]
    unlabeled = dict(batch) | {"labels": torch.full_like(batch["labels"], -100)}
    loss = trainer.compute_loss(model, unlabeled)
    loss.backward()
    assert loss == 0


def test_evaluation_and_bf16(tmp_path):
    trainer = build_trainer(tmp_path, eval_rows=build_chats(5, first=20), bf16=True, max_steps=1, save_strategy="no")
    trainer.train()
    first, second = trainer.evaluate(), trainer.evaluate(build_chats(5, first=20))
    assert first["eval_loss"] == pytest.approx(second["eval_loss"])
    assert first["eval_loss"] == pytest.approx(history(trainer)[0]["loss"], rel=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packing": True}, "Images cannot be packed"),
        ({"box_units": "pt"}, "box_units must be one of"),
        ({"max_steps": 0}, "max_steps must be at least 1, or -1 for all epochs, got 0"),
        ({"max_steps": -5}, "max_steps must be at least 1"),
        ({"num_train_epochs": 0}, "num_train_epochs must be a positive number, got 0"),
        ({"completion_only_loss": False}, "completion_only_loss=False has no effect here"),
        ({"pad_token": "<pad>"}, "pad_token='<pad>' has no effect here"),
        ({"dataset_text_field": "words"}, "dataset_text_field='words' has no effect here"),
        ({"dataset_kwargs": {"add_special_tokens": False}}, "dataset_kwargs=.* has no effect here"),
        ({"dataset_num_proc": 2}, "dataset_num_proc=2 has no effect here"),
        ({"shuffle_dataset": True}, "shuffle_dataset=True has no effect here"),
        ({"pad_to_multiple_of": 8}, "pad_to_multiple_of=8 has no effect here"),
        ({"freeze": ["mq_former"]}, "a part to freeze or to train must be one of .*'mqformer'"),
        ({"freeze": ["mqformer"], "train": ["mqformer"]}, "mqformer: a part cannot be both in `freeze` and in `train`"),
    ],
)
def test_invalid_arguments_are_errors(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        LyricsSFTConfig(output_dir=str(tmp_path), bf16=False, **options)
    with pytest.raises(ValueError, match="needs a processing_class"):
        LyricsSFTTrainer(build_model(), LyricsSFTConfig(output_dir=str(tmp_path), bf16=False), build_chats(1))


def test_options_of_trl_without_effect_are_errors(tmp_path):
    args = LyricsSFTConfig(output_dir=str(tmp_path), bf16=False, dataset_kwargs={"skip_prepare_dataset": True})
    parts = {"train_dataset": build_chats(1), "processing_class": build_processor()}
    with pytest.raises(ValueError, match="formatting_func has no effect here"):
        LyricsSFTTrainer(build_model(), args, **parts, formatting_func=str)


def test_arguments_have_defaults_and_a_kind(tmp_path, monkeypatch):
    """The run is named after the model, as TRL does; a plain configuration of TRL is an error."""
    from trl import SFTConfig

    monkeypatch.chdir(tmp_path)
    build_model().save_pretrained("base")
    parts = {"train_dataset": build_chats(1), "processing_class": build_processor()}
    assert LyricsSFTTrainer("base", **parts).args.output_dir == "base-SFT"
    with pytest.raises(TypeError, match="args is a SFTConfig, and LyricsSFTTrainer needs a LyricsSFTConfig"):
        LyricsSFTTrainer("base", SFTConfig("run", bf16=False), **parts)


def test_fewer_rows_than_a_batch_are_trained(tmp_path):
    """Also the last, smaller batch of an epoch; without it, or without rows, there is an error."""
    trainer = build_trainer(tmp_path, rows=build_chats(3), max_steps=1, save_strategy="no")
    trainer.train()
    assert trainer.state.global_step == 1
    trainer = build_trainer(tmp_path, rows=build_chats(6), max_steps=-1, num_train_epochs=1, save_strategy="no")
    trainer.train()
    assert trainer.state.global_step == 2
    with pytest.raises(ValueError, match=r"There are 3 rows to train on, fewer than the 4 of a batch \(4 x 1"):
        build_trainer(tmp_path, rows=build_chats(3), dataloader_drop_last=True).train()
    with pytest.raises(ValueError, match="There is no row to train on"):
        build_trainer(tmp_path, rows=[]).train()


@pytest.fixture(scope="module")
def ranks_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sft_ranks")


def check_ranks(results, tmp_path):
    """Compare two processes with one on the joined batch, and the resumed run with the uninterrupted one."""
    trainer = build_trainer(tmp_path, rows=mixed_rows(), train_sampling_strategy="sequential")
    trainer.train()
    for mine, theirs in zip(history(trainer), results[0]["log"], strict=True):
        for name, value in mine.items():
            assert theirs[name] == pytest.approx(value, abs=1e-4, rel=1e-3), name
    for mine, theirs in zip(results[0]["resumed log"], results[0]["log"], strict=True):
        assert mine["loss"] == theirs["loss"]
    return trainer


def test_two_processes_train_as_one(ranks_folder, tmp_path):
    """Also if the batch of one process has no image, and after a resumption."""
    results = run_two("sft_ranks", ranks_folder, "sft")
    trainer = check_ranks(results, tmp_path)
    for name, tensor in weights(trainer).items():
        torch.testing.assert_close(results[1]["weights"][name], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_fsdp_changes_nothing(ranks_folder, tmp_path):
    """Weights, gradients and optimizer states are sharded by FSDP2."""
    check_ranks(run_two("sft_ranks", ranks_folder, "fsdp"), tmp_path)


def test_qlora(tmp_path):
    """Only the language model is in 4 bits; the adapter loads on the base model in full precision."""
    from bitsandbytes.nn import Linear4bit

    from lyrics.modeling_lyrics import LyricsForConditionalGeneration

    build_model(std=0.15).save_pretrained(tmp_path / "base")
    trainer = build_trainer(tmp_path, model=str(tmp_path / "base"), load_in_4bit=True, learning_rate=1e-2, max_steps=8)
    in_4_bits = [name for name, module in trainer.model.named_modules() if isinstance(module, Linear4bit)]
    assert in_4_bits
    assert all(".language_model." in name for name in in_4_bits)
    trainer.train()
    trainer.save_model()
    assert history(trainer)[-1]["loss"] < 0.9 * history(trainer)[0]["loss"]
    model = LyricsForConditionalGeneration.from_pretrained(tmp_path)
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    adapted = {name: one for name, one in trainer.model.named_parameters() if ".lora_" in name}
    loaded = {f"base_model.model.{name}": one for name, one in model.named_parameters()}
    assert all(torch.equal(one, loaded[name]) for name, one in adapted.items())
