"""Where the suites are, and the marks that they use."""

import os
import sys
from pathlib import Path

import pytest

MARKS = ("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test", "torch_compile_test")

collect_ignore_glob = []
if "TRANSFORMERS_SUITE" in os.environ:
    folder = Path(os.environ["TRANSFORMERS_SUITE"]).absolute()
    if not (folder / "transformers_suite").is_dir():
        raise pytest.UsageError(f"TRANSFORMERS_SUITE={folder} holds no transformers_suite: run `make test-slow`.")
    sys.path.insert(0, str(folder))
else:
    collect_ignore_glob = ["test_*.py"]


def pytest_configure(config):
    for mark in MARKS:
        config.addinivalue_line("markers", f"{mark}: of Transformers' own suites")
