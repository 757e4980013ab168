"""bfloat16 is offered where the hardware has it, told by /proc/cpuinfo and the CUDA capability."""

from __future__ import annotations

import io

import pytest
import torch

from stages import precision
from stages.precision import hardware_has_bfloat16


@pytest.fixture(autouse=True)
def asked_afresh():
    hardware_has_bfloat16.cache_clear()
    yield
    hardware_has_bfloat16.cache_clear()


def cpu(monkeypatch, text: str | None) -> None:
    """A machine whose /proc/cpuinfo reads `text`; None: that has no such file."""

    def fake_open(path: str) -> io.StringIO:
        assert path == "/proc/cpuinfo"
        if text is None:
            raise FileNotFoundError(path)
        return io.StringIO(text)

    monkeypatch.setattr(precision, "open", fake_open, raising=False)


def cpuinfo(flags: str) -> str:
    core = f"processor\t: 0\nvmx flags\t: vnmi amx_bf16\nflags\t\t: fpu vme {flags} arat\nbugs\t\t:\n"
    return f"{core}\n{core}"


def cuda(monkeypatch, *capabilities: tuple[int, int]) -> None:
    """A machine with these cards, the first of them the current one; none: without CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))

    def capability(device=None) -> tuple[int, int]:
        index = None if device is None else torch.device(device).index
        return capabilities[index or 0]

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)


@pytest.mark.parametrize("flags, native", [
    ("avx512f amx_bf16 amx_tile amx_int8", True),
    ("avx512f avx512_bf16", True),
    ("avx512f avx512bw avx512_vnni avx512_fp16", False),
    ("avx2 bf16 amx_tile", False),
    ("", False),
])  # fmt: skip
def test_cpu_flags(monkeypatch, flags, native):
    cpu(monkeypatch, cpuinfo(flags))
    assert hardware_has_bfloat16("cpu") is native


def test_cpu_without_flags_promises_nothing(monkeypatch):
    cpu(monkeypatch, "processor\t: 0\nFeatures\t: fp asimd amx_bf16\n")  # not x86: another word, another meaning
    assert hardware_has_bfloat16("cpu") is False
    hardware_has_bfloat16.cache_clear()
    cpu(monkeypatch, None)
    assert hardware_has_bfloat16("cpu") is False


@pytest.mark.parametrize("capability, native", [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_cuda_capability(monkeypatch, capability, native):
    cpu(monkeypatch, cpuinfo("amx_bf16" if not native else "avx2"))
    cuda(monkeypatch, capability)
    assert hardware_has_bfloat16("cuda") is native
    assert hardware_has_bfloat16() is native  # the default asks the card, where there is one
    assert hardware_has_bfloat16("cpu") is not native


def test_each_card_is_asked(monkeypatch):
    cuda(monkeypatch, (7, 5), (9, 0))
    assert not hardware_has_bfloat16("cuda:0")
    assert hardware_has_bfloat16("cuda:1")


def test_machine_without_cuda(monkeypatch):
    cuda(monkeypatch)
    cpu(monkeypatch, cpuinfo("avx512_bf16"))
    assert hardware_has_bfloat16() is True
    assert hardware_has_bfloat16("cuda") is False
    assert hardware_has_bfloat16("mps") is False


def test_asked_once(monkeypatch):
    cpu(monkeypatch, cpuinfo("amx_bf16"))
    assert hardware_has_bfloat16("cpu")
    cpu(monkeypatch, None)
    assert hardware_has_bfloat16("cpu")
