"""Two processes (gloo) compared with one on the joined batch: the same negatives, losses, gradients and run."""

import re

import pytest
import torch

from lyrics.trainers.common.checkpointing import CheckpointError, check_checkpoint

from .launch import run_two
from .two_ranks import KINDS, SAVED, STEPS, build_trainer, history, run_step


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder):
    return run_two("two_ranks", folder, "copied")


@pytest.mark.parametrize("kind", [*KINDS, "trained vision"])
def test_a_step_of_two_ranks_is_that_of_one(ranks, kind):
    """Contrast and negatives span all ranks; losses agree within 1e-5, gradients within 1e-4."""
    trains_vision = kind == "trained vision"
    one = run_step("plain" if trains_vision else kind, 0, 1, train_vision=trains_vision)
    negatives = torch.cat([rank[kind]["negatives"] for rank in ranks], dim=1)
    assert torch.equal(negatives, one["negatives"])
    assert (one["negatives"] // 4 != torch.arange(8) // 4).any(), "some negatives come from the other rank"
    for name, value in one["losses"].items():
        mean = torch.stack([rank[kind]["losses"][name] for rank in ranks]).mean()
        torch.testing.assert_close(mean, value, atol=1e-5, rtol=1e-5)
    for rank in ranks:
        assert rank[kind]["gradients"].keys() == one["gradients"].keys()
        torch.testing.assert_close(rank[kind]["gradients"], one["gradients"], atol=1e-4, rtol=1e-3)


def test_a_run_of_two_ranks_is_that_of_one(ranks, tmp_path):
    """In data order, masks, negatives, logged averages, and the trained weights."""
    trainer = build_trainer(tmp_path, 1)
    trainer.train()
    expected = history(trainer)
    assert len(ranks[0]["log"]) == len(expected) == STEPS
    for mine, theirs in zip(expected, ranks[0]["log"], strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert theirs[name] == pytest.approx(value, abs=1e-4, rel=1e-3 if name == "grad_norm" else 1e-4), name
    for name, tensor in trainer.model.state_dict().items():
        for rank in ranks:
            torch.testing.assert_close(rank["weights"][name], tensor, atol=1e-4, rtol=1e-3)


def test_two_ranks_resume_where_they_stopped(ranks):
    """With dropout and data workers, bit for bit."""
    assert ranks[0]["resumed log"] == ranks[0]["log with dropout"]


def test_another_number_of_processes_is_refused(ranks, folder, tmp_path):
    assert check_checkpoint(folder / "run" / f"checkpoint-{SAVED}")["num_ranks"] == 2
    trainer = build_trainer(tmp_path, 1)
    with pytest.raises(CheckpointError, match="saved by 2 processes and this run has 1"):
        trainer.train(str(folder / "run" / f"checkpoint-{SAVED}"))


def test_a_loss_that_is_not_finite_stops_both_ranks(ranks, folder):
    """Before the optimizer step; the error names step, ranks and samples."""
    messages = [rank["bad loss"] for rank in ranks]
    assert messages[0] == messages[1]
    assert re.search(r"loss of step \d is not finite, .* not taken \(rank \d: loss nan, samples \d+, ", messages[0])
    named = set(re.findall(r"\d+", messages[0].partition("samples")[2]))
    assert "7" in named


@pytest.mark.slow
def test_fsdp_changes_nothing(folder, tmp_path):
    """FSDP2 gathers the weights of a layer that only projects keys and values, as those of a whole layer."""
    results = run_two("two_ranks", folder, "fsdp")[0]
    trainer = build_trainer(tmp_path, 1)
    trainer.train()
    for mine, theirs in zip(history(trainer), results["log"], strict=True):
        for name, value in mine.items():
            assert theirs[name] == pytest.approx(value, abs=1e-4, rel=1e-3), name
    assert results["resumed log"] == results["log"]
