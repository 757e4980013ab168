"""One attention for every network, softmax(q kᵀ · scale + bias) v, on the fastest kernel that really runs.

`attention` is the only function to call. Three backends compute the same thing:

- `sdpa`: torch's scaled_dot_product_attention. Runs everywhere and is the reference.
- `plain`: the formula as it stands, with the whole table of weights in memory, and in half precision if its input is.
  For training on CPUs, where torch's kernel takes three times as long (measured at 64 positions in bf16).
- `xformers`: memory-efficient attention (github.com/facebookresearch/xformers). CUDA only.

Whether xformers can run depends on how its wheel, torch, the driver and the card fit together, and its own
flags do not tell the whole story: a wheel built for another CUDA runtime imports without error and then
refuses every tensor. So it is asked once per kind of input, by calling it on a tiny tensor, forward and back.
"""

from __future__ import annotations

import functools
import importlib
import logging
import warnings
from types import ModuleType
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Backend", "attention", "choose_backend"]

Backend = Literal["auto", "xformers", "sdpa", "plain"]
PLAIN_POSITIONS = 256  # keys up to which `plain` is taken: beyond, its table of weights outgrows the caches


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Scaled dot-product attention.

    q: (B, M, heads, dim) queries;  k, v: (B, N, heads, dim) keys and values, same dtype and device. Values may have
        another number of channels than keys
    bias: added to the logits, floating, broadcastable to (B, heads, M, N); -inf forbids a key. It may need
        a gradient
    causal: query i sees keys 0..i only; may be combined with a bias
    dropout: probability of dropping an attention weight. Pass 0 in evaluation: nothing here knows the mode
    scale: factor of q kᵀ, dim^-0.5 if None
    backend: "auto" takes xformers on a CUDA device where it works, plain on a CPU where gradients of short sequences
        are asked for, and SDPA otherwise, never xformers under torch.use_deterministic_algorithms(True). Naming a
        backend takes that one or raises
    returns: (B, M, heads, dim), dim that of the values
    Raises ValueError for inputs that do not fit together or an unknown backend, RuntimeError when the named
    backend cannot run.
    """
    _check(q, k, v, bias, backend)
    if bias is not None:
        bias = bias.to(q.dtype)  # under autocast q is half precision while a learned table is not
    if backend == "auto":
        learning = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        short = k.shape[1] <= PLAIN_POSITIONS
        dim = max(q.shape[-1], v.shape[-1])
        backend = choose_backend(q.device, q.dtype, dim, biased=bias is not None, learns=learning and short)
        if backend == "xformers" and q.shape[-1] != v.shape[-1]:
            backend = "sdpa"  # whether xformers can was asked for one width
    elif backend == "xformers":
        fault = _xformers_fault(q.dtype, q.device, q.shape[-1], bias is not None)
        if fault is None and torch.are_deterministic_algorithms_enabled():
            fault = "its backward pass is not deterministic, and deterministic algorithms are asked for"
        if fault is not None:
            raise RuntimeError(
                f'backend="xformers" cannot run on {q.device} in {q.dtype} with {q.shape[-1]} channels '
                f'per head{" and a bias" if bias is not None else ""}: {fault}. '
                'Use backend="auto" or "sdpa".'
            )
    if causal and (bias is not None or backend == "plain"):  # no kernel takes both: write the mask into the bias
        past = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).tril()
        bias = torch.zeros_like(past, dtype=q.dtype) if bias is None else bias
        bias, causal = bias.masked_fill(~past, float("-inf")), False
    run = {"xformers": _with_xformers, "sdpa": _with_sdpa, "plain": _plainly}[backend]
    return run(q, k, v, bias, causal, dropout, scale)


def choose_backend(
    device: torch.device, dtype: torch.dtype, dim: int, *, biased: bool = False, learns: bool = False
) -> Literal["xformers", "sdpa", "plain"]:
    """What "auto" stands for, for tensors of this device and dtype with `dim` channels per head.

    learns: gradients are wanted, of at most PLAIN_POSITIONS keys
    """
    if device.type == "cpu" and learns:
        return "plain"
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return "sdpa"
    return "xformers" if _xformers_fault(dtype, device, dim, biased) is None else "sdpa"


def _check(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, backend: str) -> None:
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {get_args(Backend)}; got {backend!r}")
    fits = q.dim() == k.dim() == 4 and k.shape[:3] == v.shape[:3] and v.dim() == 4
    if not fits or q.shape[0] != k.shape[0] or q.shape[2:] != k.shape[2:]:
        raise ValueError(
            "q must be (B, M, heads, dim), k and v (B, N, heads, dim); "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if not (q.dtype == k.dtype == v.dtype and q.device == k.device == v.device):
        raise ValueError(
            "q, k and v must share dtype and device; got "
            + ", ".join(f"{t.dtype} on {t.device}" for t in (q, k, v))
        )
    if bias is not None:
        full = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
        sizes = zip(reversed(bias.shape), reversed(full), strict=False)
        if not bias.is_floating_point() or bias.dim() > 4 or any(b not in (1, f) for b, f in sizes):
            raise ValueError(
                f"bias must be floating and broadcastable to (B, heads, M, N) = {full}; got {bias.dtype} "
                f"{tuple(bias.shape)}. Write a boolean mask as 0 where a key is seen and -inf where not."
            )


def _with_sdpa(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, dropout: float, scale: float | None
) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # SDPA wants heads before positions
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=bias, dropout_p=dropout, is_causal=causal, scale=scale
    )
    return out.transpose(1, 2)


def _plainly(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, dropout: float, scale: float | None
) -> Tensor:
    assert not causal  # `attention` has written the mask into the bias
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    logits = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.mT
    weights = (logits if bias is None else logits + bias).softmax(-1)
    return (F.dropout(weights, dropout) @ v).transpose(1, 2)


def _with_xformers(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, dropout: float, scale: float | None
) -> Tensor:
    ops = _import_xformers_ops()
    mask = ops.LowerTriangularMask() if causal else None
    if bias is not None:
        # The kernel wants the whole tensor, with rows that start at multiples of 8 elements: pad, then cut.
        keys = k.shape[1]
        bias = bias.expand(q.shape[0], q.shape[2], q.shape[1], keys)
        mask = F.pad(bias, (0, -keys % 8))[..., :keys]
    return ops.memory_efficient_attention(q, k, v, attn_bias=mask, p=dropout, scale=scale)


def _import_xformers_ops() -> ModuleType:
    """xformers.ops, imported at first use, without the long warning it logs where its kernels do not load."""
    logger = logging.getLogger("xformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("xformers.ops")
    finally:
        logger.setLevel(level)


@functools.cache
def _xformers_fault(dtype: torch.dtype, device: torch.device, dim: int, biased: bool) -> str | None:
    """Why xformers cannot take such tensors, in one line, or None if it can: found by calling it, once.

    The number of channels and the bias belong to the question: some kernels refuse one or the other on
    some cards.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            q, k, v = (
                torch.zeros(1, 8, 1, dim, dtype=dtype, device=device, requires_grad=True) for _ in range(3)
            )
            bias = torch.zeros(1, 1, 8, 8, dtype=dtype, device=device, requires_grad=True) if biased else None
            _with_xformers(q, k, v, bias, False, 0.0, None).sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # a kernel that does not fit the card fails only here
    except Exception as error:  # import, link and kernel errors come as any type; every one means "cannot"
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return None
