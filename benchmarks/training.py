"""Training: pictures per second of each stage, where a step goes, and the share of the device's matrix rate it uses.

    python benchmarks/training.py [--configs FILE ...] [--batch-size N] [--precision auto] [--compile] [--json FILE]

A step is that of `stages.training.train`, on one device and pictures of noise: crop and mirror, loss and gradient,
optimizer and averages. Multiplications of one step are counted by torch (FlopCounterMode, forward and backward); the
matrix rate is that of 4096 x 4096 products in the same precision, right before each row. The gap between 100 % and a
row is everything that is not a large product: norms, activations, small products, memory traffic.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Generator
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.cpu import parsed, processor  # noqa: E402
from stages.provenance import commit  # noqa: E402
from stages.registry import kind_of  # noqa: E402
from stages.training.adversarial import Turns  # noqa: E402
from stages.training.config import Config  # noqa: E402
from stages.training.data import Mixture, Pictures  # noqa: E402
from stages.training.ema import Averaged, half_life  # noqa: E402
from stages.training.loop import precision_of  # noqa: E402
from stages.training.optimizers import build_optimizer, freeze, recompute_blocks  # noqa: E402

DEFAULT = [f"configs/{name}.toml" for name in ("stage1", "stage2", "stage3")]
TYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", nargs="+", default=DEFAULT, metavar="FILE")
    parser.add_argument("--batch-size", type=int, help="pictures per step (default: the config's)")
    parser.add_argument("--steps", type=int, default=8, help="measured, after two that are not")
    parser.add_argument("--precision", default="auto", choices=("auto", "no", "bf16", "fp16"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parsed(parser)
    torch.set_num_threads(options.threads)
    device, precision = torch.device(options.device), precision_of(options.precision)
    rows = []
    for path in options.configs:
        rows.append(measured(Config.read(path), device, precision, options))
        print("{name}: {pictures_per_second:.1f} pictures/s, {gflop_per_picture:.2f} GFLOP each, {share:.0%} of "
              "{matrix_gflops:.0f} GFLOP/s; ".format(**rows[-1])
              + ", ".join(f"{part} {share:.0%}" for part, share in rows[-1]["parts"].items()), flush=True)  # fmt: skip
    result = {
        "command": " ".join(["python", "benchmarks/training.py", *sys.argv[1:]]), "commit": commit(),
        "date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "threads": options.threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "precision": precision, "compile": options.compile, "recompute": options.recompute, "rows": rows,
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def measured(config: Config, device: torch.device, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    batch = options.batch_size or config.training.batch_size
    torch.manual_seed(0)
    stage = kind_of(config.family, config.kind)[1](config.network)
    stage.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    freeze(stage, (*stage.frozen_parameters, *config.training.freeze))
    side = config.data.side
    images = torch.randint(256, (batch, 3, side, side), generator=Generator().manual_seed(1)).byte()
    pictures = Pictures(list(images), torch.zeros(batch), side, "", {}, {})
    photographs = Mixture(("random",), (pictures,), (1.0,), (0,)).to(device)
    picks = [(0, index) for index in range(batch)]
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    optimizer, averaged = build_optimizer(stage, config.training), Averaged(stage, half_life(10_000))
    turns = Turns(stage)
    generator = Generator().manual_seed(2)

    def shown() -> torch.Tensor:
        return photographs.cuts(picks, generator).contiguous(memory_format=torch.channels_last)

    def learned(rgb: torch.Tensor) -> None:
        for player in turns.trained:
            turns.begin(player)
            with torch.autocast(device.type, TYPES[precision], enabled=precision != "no"):
                loss = stage(rgb, labels, player) if player else stage(rgb, labels)
            loss.backward()

    def stepped() -> None:
        torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        averaged.update(stage, batch, 10**6)

    counted = {torch.ops.aten.convolution_backward: convolution_backward_flop}
    counting = FlopCounterMode(display=False, custom_mapping=counted)
    with counting as counter, sdpa_kernel(SDPBackend.MATH):  # the others are not all counted
        learned(shown())
    optimizer.zero_grad()
    if options.recompute:
        recompute_blocks(stage)
    if options.compile:
        stage.compile(dynamic=False)
    seconds = {"crop and mirror": 0.0, "loss and gradient": 0.0, "optimizer and averages": 0.0}
    matrix = matrix_rate(device, TYPES[precision])
    for step in range(options.steps + 2):
        if step == 2:
            seconds = dict.fromkeys(seconds, 0.0)
        rgb: list[torch.Tensor] = []
        seconds["crop and mirror"] += timed(functools.partial(lambda made: made.append(shown()), rgb), device)
        seconds["loss and gradient"] += timed(functools.partial(learned, rgb[0]), device)
        seconds["optimizer and averages"] += timed(stepped, device)
    whole = sum(seconds.values())
    rate = batch * options.steps / whole
    flop = counter.get_total_flops() / batch
    return {
        "name": config.name, "kind": config.kind, "batch_size": batch, "pictures_per_second": rate,
        "gflop_per_picture": flop / 1e9, "matrix_gflops": matrix / 1e9, "share": rate * flop / matrix,
        "parts": {part: value / whole for part, value in seconds.items()},
    }  # fmt: skip


def convolution_backward_flop(grad, x, weight, *settings: Any, out_shape: Any, **_: Any) -> int:
    """Shapes of the arguments of aten.convolution_backward -> FLOPs: each gradient costs what the forward pass does.
    (Torch's own count takes the gradient of a depthwise kernel for that of a full one.)
    """
    transposed, wanted = settings[4], settings[7]
    return conv_flop_count(x, weight, grad, transposed) * sum(wanted[:2])


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int = 4096) -> float:
    """Multiplications and additions per second of large matrix products."""
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    return 2 * side**3 / min(timed(lambda: a @ b, device) for _ in range(5))


def timed(call: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
