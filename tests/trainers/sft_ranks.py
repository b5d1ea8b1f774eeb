"""The second stage on two processes: `python -m tests.trainers.sft_ranks FOLDER sft|fsdp` on each rank."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import distributed as dist
from transformers.utils import logging

from lyrics.trainers import LyricsSFTConfig, LyricsSFTTrainer

from ..sft_parts import build_chat, build_chats, build_model, build_processor
from .two_ranks import FSDP, history

TOTAL = 4  # rows of the joined batch


def mixed_rows():
    """Rows with an image, then rows without, so that the batch of one of two ranks has no image."""
    return [build_chat(seed, pictures=1 if seed % TOTAL < TOTAL // 2 else 0) for seed in range(4 * TOTAL)]


def build_trainer(folder, num_ranks=1, rows=None, eval_rows=None, model=None, **changes):
    torch.manual_seed(0)
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": TOTAL // num_ranks,
        "max_steps": 3,
        "save_steps": 1,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "warmup_steps": 1,
        "lora_dropout": 0.0,
        "max_length": 256,
        "gradient_checkpointing": False,
        "bf16": False,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 5,
    }
    args = LyricsSFTConfig(**settings | changes)
    rows = build_chats(10) if rows is None else rows
    return LyricsSFTTrainer(model or build_model(std=0.15), args, rows, eval_rows, build_processor())


def weights(trainer):
    """Return the trainable parameters by name."""
    return {name: one.detach() for name, one in trainer.model.named_parameters() if one.requires_grad}


def run_ranks(folder, kind):
    """Train for some steps, and again from a checkpoint; return both logs."""
    if kind == "fsdp":
        os.environ |= FSDP | {"FSDP_TRANSFORMER_CLS_TO_WRAP": "LyricsMQFormerLayer,CLIPEncoderLayer,LlamaDecoderLayer"}
    settings = {"num_ranks": 2, "rows": mixed_rows(), "train_sampling_strategy": "sequential"}
    trainer = build_trainer(folder / kind, **settings)
    trainer.train()
    results = {"log": history(trainer)}
    if kind == "sft":
        results["weights"] = weights(trainer)
    resumed = build_trainer(folder / kind, **settings)
    resumed.train(str(folder / kind / "checkpoint-1"))
    return results | {"resumed log": history(resumed)}


def main(folder, kind):
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    results = run_ranks(folder, kind)
    torch.save(results, folder / f"{kind}{os.environ['RANK']}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
