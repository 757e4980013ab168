"""Attention against its formula, folding against loops, and the choice of a backend against a stand-in."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import stages.nn.attention as attention_module
from stages.nn.attention import attention, choose_backend
from stages.nn.axial import AxialAttention, column_attention, row_attention


def formula(q: Tensor, k: Tensor, v: Tensor, bias=None, causal=False, scale=None) -> Tensor:
    """The definition, one query at a time."""
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            for i in range(q.shape[1]):
                logits = (k[b, :, h] @ q[b, i, h]) * (q.shape[3] ** -0.5 if scale is None else scale)
                if bias is not None:
                    logits = logits + bias.expand(q.shape[0], q.shape[2], q.shape[1], k.shape[1])[b, h, i]
                if causal:
                    logits = logits[: i + 1]
                out[b, i, h] = logits.softmax(0) @ v[b, : len(logits), h]
    return out


def random_qkv(shape=(2, 6, 3, 4), keys=None, dtype=torch.float64, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [shape, *[(shape[0], keys or shape[1], *shape[2:])] * 2]
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(device, dtype) for size in sizes]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias_shape", [None, (6, 6), (3, 6, 6), (2, 1, 6, 6), (2, 3, 1, 6)])
@pytest.mark.parametrize("scale", [None, 0.1])
@pytest.mark.parametrize("backend", ["sdpa", "plain"])
def test_attention_is_the_formula(causal, bias_shape, scale, backend):
    q, k, v = random_qkv()
    bias = None if bias_shape is None else torch.randn(bias_shape, dtype=torch.float64)
    out = attention(q, k, v, bias=bias, causal=causal, scale=scale, backend=backend)
    torch.testing.assert_close(out, formula(q, k, v, bias, causal, scale), rtol=0, atol=1e-12)


def test_gradients_of_both_ways_on_a_cpu_agree():
    bias = torch.randn(3, 6, 6, dtype=torch.float64)
    gradients = []
    for backend in ("sdpa", "plain"):
        leaves = [t.requires_grad_() for t in (*random_qkv(), bias.clone())]
        q, k, v, learned = leaves
        attention(q, k, v, bias=learned, causal=True, backend=backend).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_plain_is_taken_for_short_sequences_that_learn_on_a_cpu(monkeypatch):
    taken: list[str] = []

    def noting(name: str) -> Callable[..., torch.Tensor]:
        def noted(q: torch.Tensor, *_: object) -> torch.Tensor:
            taken.append(name)
            return q

        return noted

    for name in ("_plainly", "_with_sdpa"):
        monkeypatch.setattr(attention_module, name, noting(name))
    q, k, v = (t.requires_grad_() for t in random_qkv())
    long = random_qkv(keys=attention_module.PLAIN_POSITIONS + 1)[1].requires_grad_()
    attention(q, k, v)
    attention(q, long, long)
    with torch.no_grad():
        attention(q, k, v)
    assert taken == ["_plainly", "_with_sdpa", "_with_sdpa"]


def test_keys_of_another_length():
    q, k, v = random_qkv(keys=9)
    torch.testing.assert_close(attention(q, k, v), formula(q, k, v), rtol=0, atol=1e-12)


def test_dropout_drops_and_keeps_the_mean():
    q, k, _ = random_qkv((1, 400, 1, 4))
    v = torch.ones_like(q)
    out = attention(q, k, v, dropout=0.5)
    assert not torch.allclose(out, v) and abs(out.mean() - 1) < 0.05


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(backend="flash"), "backend must be"),
        (dict(k=torch.zeros(2, 6, 3, 5)), "q must be"),
        (dict(q=torch.zeros(6, 3, 4)), "q must be"),
        (dict(v=torch.zeros(2, 6, 3, 4, dtype=torch.float64)), "share dtype"),
        (dict(bias=torch.zeros(6, 6, dtype=torch.bool)), "boolean mask"),
        (dict(bias=torch.zeros(2, 6, 6)), "broadcastable"),
    ],
)
def test_inputs_that_do_not_fit(change, message):
    arguments = dict(zip("qkv", torch.zeros(3, 2, 6, 3, 4), strict=True)) | change
    q, k, v = (arguments.pop(name) for name in "qkv")
    with pytest.raises(ValueError, match=message):
        attention(q, k, v, **arguments)


# --- axial folding


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_folding_is_a_loop_over_rows_and_columns(causal, biased):
    q, k, v = torch.randn(3, 2, 5, 7, 3, 4, dtype=torch.float64)
    along_w, along_h = (torch.randn(3, n, n, dtype=torch.float64) if biased else None for n in (7, 5))

    rows = torch.stack(
        [attention(q[:, i], k[:, i], v[:, i], bias=along_w, causal=causal) for i in range(5)], 1
    )
    torch.testing.assert_close(
        row_attention(q, k, v, bias=along_w, causal=causal), rows, rtol=0, atol=1e-12
    )
    columns = torch.stack(
        [attention(q[:, :, j], k[:, :, j], v[:, :, j], bias=along_h, causal=causal) for j in range(7)], 2
    )
    torch.testing.assert_close(
        column_attention(q, k, v, bias=along_h, causal=causal), columns, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("fold", [row_attention, column_attention])
def test_folding_refuses_other_shapes(fold):
    with pytest.raises(ValueError, match=r"\(B, H, W, heads, dim\)"):
        fold(*torch.zeros(3, 2, 5, 3, 4))


@pytest.mark.parametrize("axis", ["row", "column"])
@pytest.mark.parametrize("causal", [False, True])
def test_layer_with_relative_bias_is_a_brute_force_loop(axis, causal):
    torch.manual_seed(0)
    heads, dim, length = 2, 3, 8
    layer = AxialAttention(heads * dim, heads, axis, length, relative_bias=True, causal=causal).double()
    assert layer.relative is not None
    torch.nn.init.normal_(layer.relative)
    x = torch.randn(2, 5, 7, heads * dim, dtype=torch.float64)

    lines = x if axis == "row" else x.transpose(1, 2)  # (B, lines, positions, C)
    q, k, v = (lines @ w.T for w in layer.qkv.weight.chunk(3))
    expected = torch.zeros_like(lines)
    size = lines.shape[2]
    for b in range(lines.shape[0]):
        for line in range(lines.shape[1]):
            for h in range(heads):
                own = slice(h * dim, (h + 1) * dim)
                for i in range(size):
                    seen = range(i + 1 if causal else size)
                    logits = torch.stack([
                        q[b, line, i, own] @ k[b, line, j, own] / dim**0.5
                        + layer.relative[h, length - 1 + (j - i)] for j in seen
                    ])  # fmt: skip
                    weights = logits.softmax(0)
                    expected[b, line, i, own] = sum(weights[j] * v[b, line, j, own] for j in seen)
    expected = expected @ layer.out.weight.T
    if axis == "column":
        expected = expected.transpose(1, 2)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_every_parameter_gets_a_finite_gradient():
    for axis in ("row", "column"):
        layer = AxialAttention(8, 2, axis, 6, relative_bias=True)
        layer(torch.randn(2, 5, 6, 8)).square().sum().backward()
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 1e-6, name


def test_layer_starts_glorot_and_with_no_bias():
    layer = AxialAttention(256, 4, "row", 16, relative_bias=True)
    assert layer.relative is not None and layer.relative.shape == (4, 32) and not layer.relative.any()
    limit = (6 / (256 + 256)) ** 0.5
    for weight in (*layer.qkv.weight.chunk(3), layer.out.weight):
        assert weight.shape == (256, 256)
        assert 0.99 * limit < weight.abs().max() <= limit
        assert abs(weight.std() / (limit / 3**0.5) - 1) < 0.02
    assert {name for name, _ in layer.named_parameters()} == {"qkv.weight", "out.weight", "relative"}


def test_layer_errors():
    with pytest.raises(ValueError, match="multiple of heads"):
        AxialAttention(10, 4, "row")
    with pytest.raises(ValueError, match="axis must be"):
        AxialAttention(8, 4, "rows")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs length"):
        AxialAttention(8, 4, "row", relative_bias=True)
    with pytest.raises(ValueError, match="up to 4 positions; got 5"):
        AxialAttention(8, 4, "row", 4, relative_bias=True)(torch.zeros(1, 2, 5, 8))


# --- the choice of a backend, with a stand-in for xformers


@pytest.fixture
def stand_in(monkeypatch):
    """A module that answers like xformers.ops on any device, and keeps what it was asked."""
    calls: list[SimpleNamespace] = []

    class LowerTriangularMask:
        pass

    def memory_efficient_attention(q, k, v, attn_bias=None, p=0.0, scale=None):
        if ops.fault is not None:
            raise ops.fault
        calls.append(SimpleNamespace(q=q, bias=attn_bias, p=p))
        if isinstance(attn_bias, Tensor):  # what the real one insists on
            assert attn_bias.shape == (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
            assert attn_bias.stride(-2) % 8 == 0 and attn_bias.dtype == q.dtype
        causal = isinstance(attn_bias, LowerTriangularMask)
        logits = torch.einsum("bihd,bjhd->bhij", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if isinstance(attn_bias, Tensor):
            logits = logits + attn_bias
        if causal:
            logits = logits.masked_fill(~torch.ones_like(logits).tril().bool(), float("-inf"))
        return torch.einsum("bhij,bjhd->bihd", logits.softmax(-1), v)

    ops = SimpleNamespace(
        LowerTriangularMask=LowerTriangularMask,
        memory_efficient_attention=memory_efficient_attention,
        calls=calls,
        fault=None,
    )
    monkeypatch.setitem(sys.modules, "xformers", SimpleNamespace(ops=ops))
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    probe = attention_module._xformers_fault
    probe.cache_clear()
    yield ops
    probe.cache_clear()


def test_xformers_is_asked_once_per_kind_of_input(stand_in):
    q, k, v = random_qkv(dtype=torch.float32)
    for _ in range(3):
        attention(q, k, v, backend="xformers")
    assert len(stand_in.calls) == 1 + 3  # one question, three answers
    assert stand_in.calls[0].q.numel() < 100
    attention(q, k, v, backend="xformers", bias=torch.zeros(6, 6))
    attention(*(t.double() for t in (q, k, v)), backend="xformers")
    assert len(stand_in.calls) == 4 + 2 + 2


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_the_named_backends_agree_forward_and_backward(stand_in, causal, biased):
    results = []
    for backend in ("xformers", "sdpa"):
        inputs = [t.requires_grad_() for t in random_qkv()]
        bias = torch.linspace(-1, 1, 36, dtype=torch.float64).reshape(6, 6) if biased else None
        bias = bias if bias is None else bias.requires_grad_()
        out = attention(*inputs, bias=bias, causal=causal, backend=backend)
        out.square().sum().backward()
        results.append([out, *(t.grad for t in (*inputs, bias) if t is not None)])
    assert stand_in.calls[1:]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_bias_takes_the_dtype_of_the_queries(stand_in):
    q, k, v = random_qkv(dtype=torch.bfloat16)
    for backend in ("xformers", "sdpa"):
        assert attention(q, k, v, bias=torch.zeros(6, 6), backend=backend).dtype == torch.bfloat16
    assert stand_in.calls[-1].bias.dtype == torch.bfloat16


def test_auto_follows_the_probe_on_cuda_and_never_asks_on_the_cpu(monkeypatch):
    asked = []

    def probe(dtype, device, dim, biased):
        asked.append((dtype, device, dim, biased))
        return "no kernel" if biased else None

    monkeypatch.setattr(attention_module, "_xformers_fault", probe)
    cuda = torch.device("cuda", 0)
    assert choose_backend(cuda, torch.float16, 16) == "xformers"
    assert choose_backend(cuda, torch.float16, 16, biased=True) == "sdpa"
    assert asked == [(torch.float16, cuda, 16, False), (torch.float16, cuda, 16, True)]
    assert choose_backend(torch.device("cpu"), torch.float32, 16) == "sdpa" and len(asked) == 2


def test_auto_runs_what_was_chosen(stand_in, monkeypatch):
    q, k, v = random_qkv()
    attention(q, k, v)
    assert not stand_in.calls
    asked = []

    def choose(device, dtype, dim, *, biased, learns):
        asked.append((device, dtype, dim, biased, learns))
        return "xformers"

    monkeypatch.setattr(attention_module, "choose_backend", choose)
    torch.testing.assert_close(attention(q, k, v, dropout=0.25), formula(q, k, v), rtol=0, atol=1e-12)
    assert len(stand_in.calls) == 1 and stand_in.calls[0].p == 0.25
    attention(q, k, v, bias=torch.zeros(6, 6))
    assert asked == [(q.device, q.dtype, 4, False, False), (q.device, q.dtype, 4, True, False)]


@pytest.mark.parametrize(
    "fault", [NotImplementedError("No operator\nfor this"), ImportError("libcudart"), OSError("x"), None]
)
def test_a_broken_xformers_means_sdpa_in_auto_and_an_error_when_named(stand_in, monkeypatch, fault):
    if fault is None:  # not installed at all
        monkeypatch.setitem(sys.modules, "xformers.ops", None)
    stand_in.fault = fault
    # On a machine without CUDA the probe fails on its own tensors, which is one more way of being broken.
    assert choose_backend(torch.device("cuda"), torch.float32, 16) == "sdpa"
    q, k, v = random_qkv()
    reason = type(fault).__name__ + ": " + str(fault).splitlines()[0] if fault else "ModuleNotFoundError"
    with pytest.raises(RuntimeError, match=f"(?s)cannot run on cpu.*{reason}.*Use backend="):
        attention(q, k, v, backend="xformers")
    torch.testing.assert_close(attention(q, k, v, backend="auto"), formula(q, k, v), rtol=0, atol=1e-12)


def test_deterministic_mode_means_sdpa(stand_in, monkeypatch):
    monkeypatch.setattr(attention_module, "_xformers_fault", lambda *_: None)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert choose_backend(torch.device("cuda"), torch.float32, 16) == "sdpa"
    with pytest.raises(RuntimeError, match="deterministic"):
        attention(*random_qkv(), backend="xformers")


def test_the_import_of_xformers_is_quiet(tmp_path, monkeypatch, caplog):
    package = tmp_path / "xformers"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "ops.py").write_text(
        "import logging, warnings\n"
        "logging.getLogger('xformers').warning('kernels do not load')\n"
        "warnings.warn('old', DeprecationWarning)\n"
    )
    for name in ("xformers", "xformers.ops"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    logger, level = logging.getLogger("xformers"), logging.INFO
    monkeypatch.setattr(logger, "level", level)
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            ops = attention_module._import_xformers_ops()
    finally:
        for name in ("xformers", "xformers.ops"):
            sys.modules.pop(name, None)
    assert ops.__file__ is not None and str(tmp_path) in ops.__file__
    assert not caplog.records and not seen
    assert logger.level == level


def test_xformers_is_not_loaded_on_the_cpu():
    code = (
        "import sys, torch; from stages.nn.axial import AxialAttention;"
        "AxialAttention(8, 2, 'row')(torch.zeros(1, 3, 3, 8));"
        "sys.exit('xformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- the real kernels


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 2e-3), (torch.float16, 1e-2), (torch.bfloat16, 6e-2)]
)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_the_real_backends_agree_on_cuda(dtype, tolerance, biased, causal):
    device = torch.device("cuda", torch.cuda.current_device())
    fault = attention_module._xformers_fault(dtype, device, 32, biased)
    if fault is not None:
        pytest.skip(f"xformers cannot run here: {fault}")
    results = []
    cases: list[tuple[Any, Any, torch.dtype | None]] = [
        ("xformers", device, dtype), ("sdpa", device, dtype), ("sdpa", "cpu", None)
    ]  # fmt: skip
    for backend, where, kind in cases:
        inputs = [t.requires_grad_() for t in random_qkv((3, 13, 2, 32), dtype=dtype, device=where)]
        drawn = torch.randn(2, 13, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        bias = drawn.to(where, dtype).requires_grad_() if biased else None
        if kind is None:  # the reference: the same rounded inputs in double
            inputs = [t.detach().double().requires_grad_() for t in inputs]
            bias = None if bias is None else bias.detach().double().requires_grad_()
        out = attention(*inputs, bias=bias, causal=causal, backend=backend)
        out.square().sum().backward()
        results.append([out, *(t.grad for t in (*inputs, bias) if t is not None)])
    for ours in results[:2]:
        for tensor, exact in zip(ours, results[2], strict=True):
            error = (tensor.detach().cpu().double() - exact).abs().max() / exact.abs().max()
            assert error < tolerance
