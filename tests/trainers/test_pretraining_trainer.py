"""LyricsPretrainingTrainer on one process: trained parts, logs, evaluation, bad losses, saving, resumption."""

import copy
import math

import datasets
import pytest
import torch

from lyrics.modeling_lyrics import LyricsForPreTraining, LyricsPreTrainingConfig
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.trainers import DatasetsSource, LyricsPretrainingArguments

from ..pretraining_parts import build_model, build_processor, build_row, build_rows
from .two_ranks import build_trainer, history

OBJECTIVES = ("loss_itc", "loss_itm", "loss_icg", "loss_msp")


def test_all_but_the_vision_encoder_is_trained(tmp_path):
    """The vision encoder stays in evaluation mode; biases, norms and the temperature have no weight decay."""
    trainer = build_trainer(tmp_path, 1, dropout=0.1, weight_decay=0.05)
    before = copy.deepcopy(trainer.model.state_dict())
    modes = []
    trainer.model.model.vision_model.register_forward_hook(lambda module, *_: modes.append(module.training))
    trainer.train()
    after = trainer.model.state_dict()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == ("vision_model" in name), name
    assert modes
    assert not any(modes)
    decayed, kept = ({id(one) for one in group["params"]} for group in trainer.optimizer.param_groups)
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.dim() > 1
            assert (id(parameter) in decayed, id(parameter) in kept) == (is_matrix, not is_matrix), name


def test_the_vision_encoder_can_be_trained(tmp_path):
    trainer = build_trainer(tmp_path, 1, train_vision_model=True, max_steps=1)
    before = trainer.model.model.vision_model.embeddings.patch_embedding.weight.clone()
    trainer.train()
    assert not torch.equal(before, trainer.model.model.vision_model.embeddings.patch_embedding.weight)


def test_learning_rate_schedule(tmp_path):
    """A linear warm-up, then a cosine down to a tenth, as in BLIP-2."""
    trainer = build_trainer(tmp_path, 1, max_steps=9, warmup_steps=3, learning_rate=1e-4, save_strategy="no")
    trainer.train()
    rates = [line["learning_rate"] for line in history(trainer)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[2] == pytest.approx(1e-4)
    for step, rate in enumerate(rates[2:]):
        share = 0.5 * (1 + math.cos(math.pi * step / 6))
        assert rate == pytest.approx(1e-5 + 9e-5 * share)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_losses_and_metrics_are_logged(tmp_path, accumulation):
    """As means over micro-batches and steps; the total loss is the sum of its parts."""
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": accumulation, "logging_steps": 2}
    trainer = build_trainer(tmp_path, 1, build_rows(24), **settings)
    seen = []
    trainer.model.register_forward_hook(lambda model, args, output: seen.append(output))
    trainer.train()
    lines = history(trainer)
    assert len(lines) == 2
    for line, outputs in zip(lines, (seen[: 2 * accumulation], seen[2 * accumulation :]), strict=True):
        assert line["loss"] == pytest.approx(sum(line[name] for name in OBJECTIVES), rel=1e-5)
        for name in OBJECTIVES:
            assert line[name] == pytest.approx(torch.stack([output[name] for output in outputs]).mean().item())
        for name in ("caption_accuracy", "masked_coordinate_accuracy"):
            counts = torch.stack([output.metric_counts[name] for output in outputs])
            hits = (torch.stack([output[name] for output in outputs]) * counts).sum()
            assert line[name] == pytest.approx((hits / counts.sum()).item())


def test_accumulation_equals_a_larger_batch(tmp_path):
    """Without the contrastive losses, which have more negatives in a larger batch, and with equally many labels."""
    rows = [build_row(seed, objects=1) | {"caption": f"a b {seed % 7}"} for seed in range(8)]
    trainers = []
    for size in (8, 2):
        only = {"itc_weight": 0.0, "itm_weight": 0.0, "msp_weight": 0.0}
        trainer = build_trainer(
            tmp_path / str(size),
            1,
            rows,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
            max_steps=1,
            save_strategy="no",
        )
        trainer.model = trainer.model_wrapped = build_model(std=0.3, **only)
        trainer.train()
        trainers.append(trainer)
    first, second = (history(trainer)[0] for trainer in trainers)
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-4)


def test_evaluation(tmp_path):
    """The same losses and metrics over all rows, the last batch included, and the same values every time."""
    trainer = build_trainer(tmp_path, 1, eval_rows={"one": build_rows(5), "two": build_rows(3, first=9)})
    metrics = trainer.evaluate()
    for name in ("one", "two"):
        for loss in (*OBJECTIVES, "loss", "recall_image_to_text", "matching_accuracy", "caption_accuracy"):
            assert math.isfinite(metrics[f"eval_{name}_{loss}"])
    again = trainer.evaluate()
    assert {name: value for name, value in metrics.items() if "loss" in name} == {
        name: value for name, value in again.items() if "loss" in name
    }
    with pytest.raises(ValueError, match="eval_dataset must have a length and be read by index, and IterableDataset"):
        build_trainer(tmp_path, 1, eval_rows=datasets.Dataset.from_dict({"a": [1]}).to_iterable_dataset())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, value):
    """The weights are those of the step before, and the message names step and samples."""
    rows = build_rows(20)
    bad = build_row(1, objects=2)
    bad["visual_objects"].region_features[:] = value
    rows[4] = bad
    trainer = build_trainer(tmp_path, 1, rows, max_steps=10, save_steps=100, logging_steps=100)
    weights = []
    trainer.model.register_forward_pre_hook(lambda model, args: weights.append(copy.deepcopy(model.state_dict())))
    with pytest.raises(FloatingPointError, match=r"of step \d is not finite.*rank 0: loss nan, samples [\d, ]*\b4\b"):
        trainer.train()
    assert all(torch.equal(tensor, weights[-1][name]) for name, tensor in trainer.model.state_dict().items())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("source", ["map", "stream"])
@pytest.mark.parametrize("stop", [1, 4])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, source, workers, stop):
    """Losses, gradients, learning rate and data, bit for bit, with dropout, in the middle of an epoch."""
    settings = {"dropout": 0.2, "dataloader_num_workers": workers, "max_steps": 6, "save_steps": 1}
    settings |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}

    def trainer(folder):
        rows = build_rows(11)
        if source == "stream":
            rows = _Shards(rows)
        return build_trainer(tmp_path / folder, 1, rows, **settings)

    whole = trainer("whole")
    whole.train()
    torch.manual_seed(99)  # whatever was random before
    resumed = trainer("whole")
    resumed.train(str(tmp_path / "whole" / f"checkpoint-{stop}"))
    assert history(resumed) == history(whole)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


class _Shards:
    """Rows in shards of three."""

    def __init__(self, rows):
        self.shards = [rows[start : start + 3] for start in range(0, len(rows), 3)]
        self.names = [f"shard {index}" for index in range(len(self.shards))]

    def read(self, shard, start):
        for index, row in list(enumerate(self.shards[shard]))[start:]:
            yield str(index), row


def test_streams_of_the_datasets_library(tmp_path):
    rows = [row | {"visual_objects": row["visual_objects"].to_dict()} for row in build_rows(12)]
    table = datasets.Dataset.from_list([{"caption": row["caption"], "image": row["image"]} for row in rows])
    trainer = build_trainer(tmp_path, 1, table.to_iterable_dataset(num_shards=2), max_steps=2, save_strategy="no")
    assert isinstance(trainer.train_dataset.source, DatasetsSource)
    trainer.collator.processor.store = _Store(rows)
    trainer.train()
    assert len(history(trainer)) == 2


class _Store:
    """Stored objects, as a refinement store looks them up."""

    def __init__(self, rows):
        self.rows = {row["image"].tobytes(): row["visual_objects"] for row in build_rows(len(rows))}

    def lookup(self, picture):
        return self.rows[picture.tobytes()]


def test_model_and_processor_are_saved_without_refiner(tmp_path, micro):
    """And load again."""
    _, processor = micro
    trainer = build_trainer(tmp_path, 1, max_steps=1, save_steps=1)
    trainer.processing_class = processor
    trainer.train()
    folder = tmp_path / "checkpoint-1"
    assert not (folder / "refiner").exists()
    assert LyricsProcessor.from_pretrained(folder).has_refiner is False
    model = LyricsForPreTraining.from_pretrained(folder)
    assert all(torch.equal(tensor, trainer.model.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert isinstance(model.config, LyricsPreTrainingConfig)


def test_bf16(tmp_path):
    trainer = build_trainer(tmp_path, 1, bf16=True, max_steps=2, save_strategy="no")
    trainer.train()
    full = build_trainer(tmp_path, 1, max_steps=2, save_strategy="no")
    full.train()
    for first, second in zip(history(trainer), history(full), strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=0.03)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"per_device_train_batch_size": 8}, "none"),
        ({"per_device_train_batch_size": 64}, "feed_forward"),
        ({"per_device_train_batch_size": 64, "gradient_checkpointing": True}, "none"),  # it computes all layers again
        ({"per_device_train_batch_size": 8, "recompute": "matching"}, "matching"),
    ],
)
def test_large_batches_save_memory(tmp_path, options, expected):
    assert LyricsPretrainingArguments(output_dir=str(tmp_path), **options).recomputation == expected


@pytest.mark.parametrize(
    "options",
    [
        {"mask_unit": "word"},
        {"on_bad_row": "ignore"},
        {"recompute": "all"},
        {"mask_probability": 1.5},
        {"caption_only_probability": -0.1},
    ],
)
def test_invalid_arguments_are_errors(tmp_path, options):
    """Before any data is opened."""
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"{name} must be (one of|in \[0, 1\]).*, got '?{value}"):
        LyricsPretrainingArguments(output_dir=str(tmp_path), **options)


def test_a_small_batch_is_overfitted(tmp_path):
    """With all four objectives together."""
    rows = [build_row(seed, objects=1) for seed in range(4)]
    settings = {"per_device_train_batch_size": 4, "learning_rate": 5e-3, "warmup_steps": 5, "save_strategy": "no"}
    trainer = build_trainer(tmp_path, 1, rows, max_steps=60, **settings)
    trainer.train()
    first, last = history(trainer)[0], history(trainer)[-1]
    assert last["loss_icg"] < 0.35 * first["loss_icg"]
    assert last["caption_accuracy"] > 0.9
    assert last["recall_image_to_text"] == 1


def test_a_processor_is_needed(tmp_path):
    from lyrics.trainers import LyricsPretrainingTrainer

    with pytest.raises(ValueError, match="needs a processing_class"):
        LyricsPretrainingTrainer(build_model(), LyricsPretrainingArguments(output_dir=str(tmp_path)), build_rows(2))
    assert build_processor().has_refiner is False


def test_fewer_rows_than_a_batch_are_an_error(tmp_path):
    """The contrastive losses need batches of equal size."""
    with pytest.raises(ValueError, match=r"There are 7 rows to train on, fewer than the 8 of a batch"):
        build_trainer(tmp_path, 1, build_rows(7)).train()
    with pytest.raises(ValueError, match="train_sampling_strategy must be one of"):
        build_trainer(tmp_path, 1, train_sampling_strategy="group_by_length")
    with pytest.raises(ValueError, match="max_steps must be at least 1"):
        build_trainer(tmp_path, 1, max_steps=-5)
