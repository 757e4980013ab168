"""Saves the averaged weights of a run that is under way as a stage, the form in which all else takes weights.

    python train_scripts/save_average.py --run runs/stage1_hints --out runs/stage1_hints/so-far

The newest checkpoint is read, and nothing of the run changes. A finished run has its averaged weights in `final`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from stages.checkpoint import CONFIG_NAME, FORMAT, WEIGHTS_NAME, CheckpointError, sha256_of
from stages.registry import load_stage
from stages.stage import Stage
from stages.training.run_folder import newest_checkpoint


def averaged_stage(run: Path) -> Stage:
    """The EMA of a run's newest checkpoint, as far as it has come. Raises CheckpointError."""
    checkpoint = newest_checkpoint(run)
    if checkpoint is None:
        raise CheckpointError(f"{run} has no checkpoint; expected the folder of a run that is under way")
    record = json.loads((checkpoint / "state.json").read_text())
    averaged = checkpoint / "averaged.safetensors"
    if sha256_of(averaged) != record["sha256"][averaged.name]:
        raise CheckpointError(f"{averaged} is damaged (its hash differs)")
    config = record["config"]
    trained = {
        "config": config["name"], "pictures": record["state"]["step"] * config["training"]["batch_size"],
        "pictures_sha256": record["pictures_sha256"], "commit": last_start(run)["commit"],
        "seed": config["training"]["seed"], "ema": True, "average": "", "finished": False,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:  # by way of a saved stage: settings may have been renamed since
        description = {"format": FORMAT, "family": config["family"], "kind": config["kind"],
                       "config": config["network"], "trained": trained}  # fmt: skip
        Path(folder, CONFIG_NAME).write_text(json.dumps(description))
        save_file(load_file(averaged), Path(folder, WEIGHTS_NAME))
        return load_stage(folder)


def last_start(run: Path) -> dict[str, Any]:
    """The log's last entry of the kind `start`."""
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["event"] == "start"][-1]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Saves the averaged weights of a run that is under way as a stage.")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--out", type=Path, required=True, help="folder to write or replace")
    options = parser.parse_args(arguments)
    try:
        stage = averaged_stage(options.run)
        stage.save_pretrained(options.out)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    assert stage.trained is not None
    print(f"{options.out}: {stage.trained['pictures']} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
