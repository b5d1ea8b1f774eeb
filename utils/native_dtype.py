"""The dtype that a machine computes fast: bfloat16 where the device has instructions for it, else float32."""

from __future__ import annotations

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)

AMPERE = (8, 0)  # first compute capability of CUDA with bfloat16


def choose_native_dtype(kind: str, capability: tuple[int, int] | None, processor_has_bfloat16: bool) -> torch.dtype:
    """Return bfloat16 where a device computes it natively, else float32.

    Args:
        kind: type of the device, such as `"cuda"`.
        capability: compute capability of a CUDA device, `None` for other devices.
        processor_has_bfloat16: bool, whether the processor has instructions for bfloat16; for the device `"cpu"`.
    """
    if kind == "cuda" and capability is not None:
        return torch.bfloat16 if capability >= AMPERE else torch.float32
    return torch.bfloat16 if kind == "cpu" and processor_has_bfloat16 else torch.float32


def native_dtype(device: torch.device | str | None = None) -> torch.dtype:
    """Return the dtype for a device of this machine, and log it once.

    Args:
        device: device; CUDA by default where there is one, else the processor.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    capability = torch.cuda.get_device_capability(chosen) if chosen.type == "cuda" else None
    dtype = choose_native_dtype(chosen.type, capability, processor_has_bfloat16())
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else f"device {chosen.type}"
    has = "has" if dtype is torch.bfloat16 else "has no"
    logger.warning_once(f"dtype auto: {str(dtype).removeprefix('torch.')}, since {name} {has} native bfloat16.")
    return dtype


def processor_has_bfloat16() -> bool:
    """Return whether this machine's processor has instructions for products in bfloat16 (AVX-512 BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
