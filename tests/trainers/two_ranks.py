"""The first stage on two processes: `python -m tests.trainers.two_ranks FOLDER [fsdp]` on each rank.

It writes its results to the folder; `test_two_ranks.py` compares them with one process.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers.utils import logging

from lyrics.trainers import LyricsPretrainingArguments, LyricsPretrainingCollator, LyricsPretrainingTrainer

from ..pretraining_parts import build_model, build_processor, build_row, build_rows

TOTAL = 8  # rows of the joined batch
STEPS, SAVED = 4, 2


def joined_rows(kind):
    """Rows of both ranks; the ranks differ in the lengths of texts and the numbers of regions."""
    rows = build_rows(TOTAL)
    if kind == "no objects on one rank":
        rows = [build_row(seed, objects=0 if seed < TOTAL // 2 else 3) for seed in range(TOTAL)]
    if kind == "equal captions":
        rows[5]["caption"] = rows[1]["caption"]
        rows[6]["image"] = rows[0]["image"]
    return rows


KINDS = ("plain", "no objects on one rank", "equal captions")


def run_step(kind, rank, num_ranks, train_vision=False):
    """Run a forward and backward pass over this rank's rows; return losses, negatives and reduced gradients."""
    part = TOTAL // num_ranks
    collator = LyricsPretrainingCollator(build_processor(), seed=3, mask_probability=0.3)
    rows = [collator.prepare(row, str(index)) for index, row in enumerate(joined_rows(kind))]
    batch = collator(rows[rank * part : (rank + 1) * part])
    del batch["samples"]
    model = build_model(std=0.3).train()
    model.model.vision_model.requires_grad_(train_vision)
    runs = DistributedDataParallel(model, find_unused_parameters=train_vision) if num_ranks > 1 else model
    output = runs(**batch)
    output.loss.backward()
    return {
        "losses": {name: value.detach() for name, value in output.items() if name.startswith("loss")},
        "negatives": torch.stack([output.negative_images, output.negative_texts]),
        "gradients": {name: value.grad for name, value in model.named_parameters() if value.grad is not None},
    }


def build_trainer(folder, num_ranks, rows=None, dropout=0.0, eval_rows=None, **changes):
    torch.manual_seed(0)
    model = build_model(std=0.3, dropout=dropout)
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": TOTAL // num_ranks,
        "max_steps": STEPS,
        "save_steps": SAVED,
        "logging_steps": 1,
        "warmup_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 5,
    }
    args = LyricsPretrainingArguments(**settings | changes)
    rows = build_rows(20) if rows is None else rows
    return LyricsPretrainingTrainer(model, args, rows, eval_rows, build_processor())


def history(trainer):
    """Return every log entry of training."""
    return [line for line in trainer.state.log_history if "loss" in line]


FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "LyricsMQFormerLayer,CLIPEncoderLayer",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


def run_sharded(folder):
    """Train with weights, gradients and optimizer states sharded by FSDP2, save, and resume."""
    os.environ |= FSDP
    trainer = build_trainer(folder / "fsdp", 2)
    trainer.train()
    results = {"log": history(trainer)}
    trainer = build_trainer(folder / "fsdp", 2)
    trainer.train(str(folder / "fsdp" / f"checkpoint-{SAVED}"))
    return results | {"resumed log": history(trainer)}


def run_copied(folder, rank):
    """Train with a copy of the model on each rank."""
    trainer = build_trainer(folder / "run", 2)  # sets up the processes
    trainer.train()
    results = {"log": history(trainer), "weights": dict(trainer.model.state_dict())}
    with_dropout = {"dropout": 0.2, "dataloader_num_workers": 1}
    trainer = build_trainer(folder / "dropout", 2, **with_dropout)
    trainer.train()
    results["log with dropout"] = history(trainer)
    trainer = build_trainer(folder / "dropout", 2, **with_dropout)
    trainer.train(str(folder / "dropout" / f"checkpoint-{SAVED}"))
    results["resumed log"] = history(trainer)
    for kind in KINDS:
        results[kind] = run_step(kind, rank, 2)
    results["trained vision"] = run_step("plain", rank, 2, train_vision=True)
    rows = build_rows(20)
    rows[7]["visual_objects"].region_features[:] = float("inf")
    try:
        build_trainer(folder / "bad", 2, rows).train()
    except FloatingPointError as error:
        results["bad loss"] = str(error)
    return results


def main(folder, kind="copied"):
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    results = run_sharded(folder) if kind == "fsdp" else run_copied(folder, rank)
    torch.save(results, folder / f"{kind}{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
