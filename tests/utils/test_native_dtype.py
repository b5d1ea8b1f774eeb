"""The dtype that a machine computes natively, and what it decides."""

import pytest
import torch

from lyrics.serving.loading import choose_dtype
from lyrics.trainers import LyricsPretrainingArguments, LyricsSFTConfig
from lyrics.utils.native_dtype import choose_native_dtype, native_dtype

HAS_GPU = torch.accelerator.is_available()


@pytest.mark.parametrize(
    ("kind", "capability", "has_bfloat16", "expected"),
    [
        ("cuda", (7, 5), True, torch.float32),  # Turing; the processor beside it does not matter
        ("cuda", (8, 0), False, torch.bfloat16),
        ("cuda", (9, 0), False, torch.bfloat16),
        ("cpu", None, True, torch.bfloat16),
        ("cpu", None, False, torch.float32),
        ("mps", None, True, torch.float32),
    ],
)
def test_bfloat16_where_it_is_native(kind, capability, has_bfloat16, expected):
    assert choose_native_dtype(kind, capability, has_bfloat16) is expected


def test_names_of_dtypes():
    assert choose_dtype(None) is None
    assert choose_dtype("auto", "cpu") is native_dtype("cpu")
    assert choose_dtype("float16") is torch.float16
    with pytest.raises(ValueError, match="dtype must be auto, float32, bfloat16 or float16, got 'int8'"):
        choose_dtype("int8")


@pytest.mark.parametrize("kind", [LyricsPretrainingArguments, LyricsSFTConfig])
def test_training_without_a_gpu_needs_no_option(tmp_path, kind):
    """bf16 is taken at its word, also where Transformers would refuse it; `dtype` decides over it."""
    native = native_dtype("cpu") is torch.bfloat16
    folder = {"output_dir": str(tmp_path), "use_cpu": HAS_GPU}
    given = kind(**folder, bf16=True)
    assert (given.bf16, given.use_cpu, given.device.type) == (True, True, "cpu")
    auto = kind(**folder, dtype="auto", bf16=not native)
    assert (auto.bf16, auto.fp16) == (native, False)
    assert kind(**folder, dtype="float32", bf16=True).bf16 is False
    assert bool(kind(**folder).bf16) == (native and kind is LyricsSFTConfig)  # what TRL has on by default
    with pytest.raises(ValueError, match=r"dtype must be one of .*, got 'half'"):
        kind(**folder, dtype="half")
