"""Training on mixtures: losses by data set in both stages; by command, tests/cli/test_data_training.py."""

import datasets
import pytest

from lyrics.datasets_lyrics.open_data import open_rows
from lyrics.trainers import LyricsPretrainingArguments, LyricsPretrainingTrainer

from ..datasets_lyrics.catalog.data_sets import write
from ..pretraining_parts import build_model, build_processor
from .sft_ranks import build_trainer
from .two_ranks import history


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_losses_of_data_sets_add_up(tmp_path):
    """The loss of a batch is the mean over the tokens of all data sets."""
    for name in ("vqav2", "refcoco"):
        write(name, tmp_path)
    (tmp_path / "mixture.yaml").write_text("data: [vqav2, refcoco]")
    rows = open_rows(tmp_path / "mixture.yaml", image_root=tmp_path)
    trainer = build_trainer(tmp_path / "run", rows=rows, max_steps=1, per_device_train_batch_size=4, max_length=1000)
    batch = next(iter(trainer.get_train_dataloader()))
    tokens = dict.fromkeys(rows.names, 0)
    for source, labels in zip(batch["sources"], batch["labels"], strict=True):
        tokens[source] += int((labels[1:] != -100).sum())
    trainer.train()
    line = history(trainer)[0]
    total = sum(line[f"loss_{name}"] * count for name, count in tokens.items())
    assert line["loss"] == pytest.approx(total / sum(tokens.values()), rel=1e-3)


def test_a_mixture_is_not_grouped_by_length(tmp_path):
    """Its rows differ from epoch to epoch, so that lengths that were measured once would be wrong."""
    write("vqav2", tmp_path)
    (tmp_path / "mixture.yaml").write_text("data: [vqav2]")
    rows = open_rows(tmp_path / "mixture.yaml", image_root=tmp_path)
    with pytest.raises(ValueError, match="cannot be grouped by length"):
        build_trainer(tmp_path / "run", rows=rows, train_sampling_strategy="group_by_length")


def test_the_first_stage_trains_on_a_mixture_of_captions(tmp_path):
    write("coco_captions", tmp_path)
    write("flickr30k", tmp_path)
    (tmp_path / "mixture.yaml").write_text("data: [coco_captions, flickr30k]\nrows_per_epoch: 4")
    rows = open_rows(tmp_path / "mixture.yaml", image_root=tmp_path, need_captions=True)
    assert {caption for position in range(4) for caption in rows[position]["caption"]} >= {"A cat.", "A brown dog."}
    args = LyricsPretrainingArguments(
        str(tmp_path / "run"), max_steps=3, per_device_train_batch_size=2, use_cpu=True, report_to=[], logging_steps=1
    )
    processor = build_processor()
    trainer = LyricsPretrainingTrainer(build_model(queries=(7, 0)), args, rows, processing_class=processor)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3]
    for line in lines:
        for kind in ("loss_itc", "loss_itm", "loss_icg"):
            losses = [line[name] for name in (f"{kind}_coco_captions", f"{kind}_flickr30k") if name in line]
            assert min(losses) - 1e-4 <= line[kind] <= max(losses) + 1e-4
    assert {name for line in lines for name in line} >= {"loss_itm_coco_captions", "loss_itm_flickr30k"}
