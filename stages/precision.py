"""Number formats: which the machine computes in hardware (emulated bfloat16 is several times slower than float32), and
whether the range of one was enough.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


@functools.cache
def hardware_has_bfloat16(device: str | None = None) -> bool:
    """Whether bfloat16 is native: CUDA from compute capability 8.0, CPUs with AMX or AVX512-BF16.

    device: "cuda", "cpu", "mps"; by default CUDA where there is one, else the CPU
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    if device.startswith("cpu"):
        return bool({"amx_bf16", "avx512_bf16"} & _cpu_flags())
    return False


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Without autocast, whose precision is too low for what is computed there."""
    if torch.compiler.is_exporting():  # a graph has no autocast, and each such context costs its exporter seconds
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def checked_finite(x: Tensor, what: str) -> Tensor:
    """x itself. Raises RuntimeError where a value is NaN or infinite: it must not pass for a color.

    what: for the message, in the plural, like "the colors of stage 1"
    """
    if torch.compiler.is_exporting():  # graphs raise nothing: see stages/graphs.py
        return x
    if not bool(x.isfinite().all()):
        raise RuntimeError(f"{what} are not finite; if this is float16, use float32")
    return x


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line for line in file if line.startswith("flags")]
    except OSError:  # not Linux: nothing is promised
        return set()
    return set(lines[0].split(":", 1)[1].split()) if lines else set()
