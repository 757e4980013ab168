"""ColTran's sampler with its caches against the same sampler without them, and how its arithmetic grows with the rows.

    python benchmarks/coltran_sampler.py [--batch 32] [--threads 2] [--json FILE]

Both samplers draw the same symbols from the same untrained network of the size of `--config`, side by side in one run.
Without caches: the whole outer decoder for every row, the whole inner decoder on its row for every pixel, as the
released sampler does, at 64 rows. FLOPs are counted by torch (FlopCounterMode), those of matrix products alone, and
without the encoder, which runs once per picture in all of them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cpu import parsed, processor
from stages.nn.coltran.core import ColTranCore, CoreSizes
from stages.provenance import commit
from stages.stage1_coarse.coltran import ColTranColorizer, drawn
from stages.training.config import Config

ROWS = (16, 32, 64)


@torch.no_grad()
def sample_uncached(core: ColTranCore, z: Tensor, choose: Any) -> Tensor:
    batch, height, width, _ = z.shape
    symbols = torch.zeros(batch, height, width, dtype=torch.int64)
    norms = [layer.prepare_norms(z) for layer in core.inner]  # once per picture, here too
    for i in range(height):
        x = core.symbol(symbols) + core.outer_position() + z
        for layer in core.outer:
            x = layer(x, layer.prepare(z, z))
        above = F.pad(x[:, :-1], (0, 0, 0, 0, 1, 0))[:, i : i + 1]
        context = torch.cat([z[:, i : i + 1], above], dim=-1)
        base = core.inner_position()[i : i + 1] + z[:, i : i + 1] + above
        for j in range(width):
            y = F.pad(core.symbol(symbols[:, i : i + 1])[:, :, :-1], (0, 0, 1, 0)) + base
            for layer, norm in zip(core.inner, norms, strict=True):
                y = layer(y, (*layer.prepare_points(context), *norm))
            symbols[:, i, j] = choose(core.write(core.norm(y))[:, 0, j], i, j)
    return symbols


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/stage1_coltran_small.toml")
    parser.add_argument("--batch", type=int, default=32, help="pictures drawn at once")
    options = parsed(parser)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = Config.read(options.config).network
    whole = ColTranColorizer(config).eval().core
    result: dict[str, Any] = {
        "config": options.config, "batch": options.batch, "threads": options.threads, "processor": processor(),
        "torch": importlib.metadata.version("torch"), "commit": commit(), "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "benchmarks/coltran_sampler.py", *sys.argv[1:]]), "rows": [],
    }
    for rows in ROWS:
        core = ColTranCore(replace(whole.sizes, height=rows)).eval()
        z, choose = inputs(core.sizes, core, options.batch)
        if rows == ROWS[0]:
            core.sample(z, choose)  # the first call pays for torch's own start
        entry: dict[str, float] = {"height": rows, "width": core.sizes.width}
        entry["cached_seconds"], cached = timed(lambda core=core, z=z, choose=choose: core.sample(z, choose))
        only, choose_only = inputs(core.sizes, core, 1)
        with FlopCounterMode(display=False) as counter:
            core.sample(only, choose_only)
        entry["cached_gflop_per_picture"] = counter.get_total_flops() / 1e9
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            core.logits(z[:1], cached[:1])
        entry["teacher_forced_gflop_per_picture"] = counter.get_total_flops() / 1e9
        if rows == ROWS[-1]:
            entry["uncached_seconds"], uncached = timed(
                lambda core=core, z=z, choose=choose: sample_uncached(core, z, choose)
            )
            entry["ratio"] = entry["uncached_seconds"] / entry["cached_seconds"]
            entry["symbols_that_differ"] = int((cached != uncached).sum())
        result["rows"].append(entry)
        print(json.dumps(entry), flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def inputs(sizes: CoreSizes, core: ColTranCore, batch: int) -> tuple[Tensor, Any]:
    """An encoded picture of noise, and a choice that is the same for both samplers."""
    generator = torch.Generator().manual_seed(1)
    gray = torch.randint(sizes.grays, (batch, sizes.height, sizes.width), generator=generator)
    uniform = torch.rand(batch, sizes.height, sizes.width, generator=generator)
    with torch.no_grad():
        z = core.encode(gray)
    return z, lambda logits, i, j: drawn(logits, uniform[:, i, j])


def timed(call: Any) -> tuple[float, Tensor]:
    start = time.perf_counter()
    symbols = call()
    return time.perf_counter() - start, symbols


if __name__ == "__main__":
    sys.exit(main())
