"""Launch of a module on two processes, as `torchrun` does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def run_two(module, folder, kind):
    """Run both ranks of `python -m tests.trainers.MODULE FOLDER KIND`, and return the results that each wrote."""
    run_on_two_processes(f"tests.trainers.{module}", [str(folder), kind])
    return [torch.load(folder / f"{kind}{rank}.pt", weights_only=True) for rank in range(2)]


def run_on_two_processes(module, arguments):
    """Run both ranks of `python -m MODULE ARGUMENT...` to their end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        environment |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=os.environ | {name: str(value) for name, value in environment.items()},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(error[-3000:] for error in errors)
