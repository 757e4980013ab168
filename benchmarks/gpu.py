"""What one call costs on a CUDA device beside the processor of the same machine: seconds, and memory of the device.

    python benchmarks/gpu.py [--repeats 5] [--threads 2] [--weights FOLDER] [--json FILE]

Every row is measured on both, one after the other, in one process: the fewest seconds of warm calls, PIL image in, PIL
image out. Precision: float32 on the processor, without TF32 on the device, and bfloat16 there. Memory is what torch's
allocator has taken, without the context of CUDA. A call that runs out of memory ends the benchmark.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time
import warnings
from functools import partial
from typing import Any

from cpu import parsed, picture, processor, timed

CALLS: dict[str, tuple[int, tuple[int, int], dict[str, Any]]] = {
    "preview": (1, (1152, 864), {"preview": True}),
    "default": (1, (1152, 864), {}),
    "8 pictures": (1, (1152, 864), {"num_samples": 8}),
    "uncertainty map": (1, (1152, 864), {"uncertainty": True}),
    "32 photos at 256x256": (32, (256, 256), {}),
    "24 megapixels": (1, (6000, 4000), {}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="warm calls per row; the fastest counts")
    parser.add_argument("--weights", help="pipeline folder (default: the weights in the package)")
    options = parsed(parser)

    import torch

    from pipeline import ColorPipeline
    from stages.provenance import commit

    if not torch.cuda.is_available():
        parser.error("there is no CUDA device")
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False  # of matrix products it is off by default
    warnings.simplefilter("error", RuntimeWarning)  # out of memory the pipeline would go on with smaller batches
    rows = []
    for name, (count, size, settings) in CALLS.items():
        photos = [picture(size)] * count
        row: dict[str, Any] = {"name": name, "photos": count, "size": size}
        for device, dtype in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16")):
            pipe = ColorPipeline.from_pretrained(options.weights).to(device, getattr(torch, dtype))
            call = partial(pipe, photos, generator=0, **settings)
            call()  # the first call of all
            torch.cuda.reset_peak_memory_stats()
            row[f"{device}_{dtype}"] = min(timed(call) for _ in range(options.repeats))
            if device == "cuda":
                row[f"peak_gb_{dtype}"] = torch.cuda.max_memory_reserved() / 1e9
        rows.append(row)
        print(json.dumps(row), flush=True)
    result = {
        "device": torch.cuda.get_device_name(), "processor": processor(), "threads": options.threads,
        "repeats": options.repeats, "weights": options.weights or "package", "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"), "commit": commit(), "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]), "rows": rows,
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
