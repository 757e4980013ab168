"""Devices and number formats: what runs where."""

from __future__ import annotations

import torch

from stages.precision import hardware_has_bfloat16


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the networks can not run on `device` in `dtype`; None when they can."""
    if device.type not in ("cpu", "cuda", "mps"):
        return "the device must be cpu, cuda or mps"
    if device.type == "cuda" and not torch.cuda.is_available():
        return "this torch sees no CUDA device; use cpu"
    if device.type == "mps" and not torch.backends.mps.is_available():
        return "this torch sees no Apple GPU; use cpu"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return "the dtype must be float32, bfloat16 or float16"
    if dtype == torch.bfloat16:
        if device.type == "cuda" and not hardware_has_bfloat16("cuda"):
            return "the card has no bfloat16 (compute capability below 8.0); use float32 or float16"
        if device.type == "mps":
            return "bfloat16 is not offered on Apple GPUs; use float32 or float16"
        if device.type == "cpu" and not hardware_has_bfloat16("cpu"):
            return ("no bfloat16 instructions (amx_bf16 or avx512_bf16 in /proc/cpuinfo) were found, and "
                    "emulation is several times slower than float32; use float32")
    if dtype == torch.float16 and device.type == "cpu":
        return "float16 is for GPUs; use float32"
    return None
