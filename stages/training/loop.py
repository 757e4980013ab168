"""The one training loop, for every stage and kind.

A run is a folder: log.jsonl, sample grids, checkpoints (the newest two) and, at the end, `final/`, the averaged
weights as the pipeline loads them. Order of a step as in EDM2: report, save, done?, loss, step, average; where a stage
has players, each of them has its loss and its step in turn. Pictures, cuts and noise of a step come from (seed, step,
rank) alone, so a killed run continues on the same loss curve, bit for bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, parse_flag_from_env
from torch import Tensor
from tqdm import tqdm

from stages.checkpoint import CheckpointError, sha256_of
from stages.precision import hardware_has_bfloat16
from stages.provenance import commit
from stages.seeds import seed_of
from stages.stage import Stage
from stages.training.adversarial import Turns, build_optimizers, named, of
from stages.training.batches import Batches
from stages.training.config import Config, check_options
from stages.training.data import Mixture
from stages.training.ema import Averaged, half_life, power
from stages.training.optimizers import freeze, recompute_blocks, set_learning_rate
from stages.training.run_folder import load_checkpoint, newest_checkpoint, save_checkpoint, save_grid, write_log

FITTED_PICTURES = 1024  # shown to `Stage.fit_to`
Report = Callable[[Stage, Tensor, Tensor], tuple[dict[str, float], Tensor]]
"""(stage, held-out rgb (N, 3, S, S), labels (N,)) -> named values for the log, and a picture grid (3, H, W) in [0, 1].
"""


class TrainingError(RuntimeError):
    """The processes of a run are not those that were asked for, or no longer hold the same weights."""


class Terminated(Exception):
    """The run was asked to stop; it has saved a checkpoint and can be continued."""


def train(
    config: Config,
    stage: Stage,
    pictures: Mixture,
    run: Path,
    report: Report,
    *,
    command: str = "",
    expect_world: int | None = None,
    stop_after: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    track: str | None = None,
) -> Path | None:
    """Trains `stage` to the end of its config, continuing what `run` holds; returns the folder of the final weights.

    pictures: the whole training splits; what is held out of the first is reported on
    expect_world: processes there must be; TrainingError otherwise (accelerate starts fewer without a word)
    stop_after: steps after which to stop without saving, as if killed (tests); returns None then
    stop: asked after each step, in any process: whether to save and stop, as Terminated
    track: a tracker of accelerate's that gets the reports too, "tensorboard" for instance; files go to `run`
    Raises FloatingPointError when the loss is not finite, CheckpointError when `run` holds another run, Terminated
    when `stop` said so and a checkpoint is saved.
    """
    options = config.training
    check_options(options)
    command = command or " ".join(sys.argv)
    started_at = commit()
    accelerator = Accelerator(
        mixed_precision=precision_of(options.precision),
        # A stage may leave parts out of its loss: stage 1 with no noise levels does not use its denoiser.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        log_with=track, project_dir=run,
    )  # fmt: skip
    if track == "all":
        raise CheckpointError('name one tracker, like "tensorboard"')
    if track and not accelerator.log_with:  # accelerate leaves out what is not installed without a word
        raise CheckpointError(f"the tracker {track!r} is not installed: pip install {track}")
    # torchrun tells each process the size of the world; without ACCELERATE_USE_CPU they train apart in one folder.
    world = expect_world if expect_world is not None else int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != world:
        raise TrainingError(
            f"expected {world} processes that synchronize; got {accelerator.num_processes}. On CPUs: "
            f"ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes {world} …"
        )
    if options.batch_size % (accelerator.num_processes * options.accumulation):
        raise CheckpointError(
            f"batch_size {options.batch_size} must be a multiple of processes x accumulation = "
            f"{accelerator.num_processes} x {options.accumulation}"
        )
    torch.set_flush_denormal(True)  # tiny gradients on the way to zero are many times slower on CPUs
    device, rank = accelerator.device, accelerator.process_index
    training, held_out = pictures.split()
    account = training.account()
    if not options.workers:
        training = training.to(device)

    stage.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(stage, (*stage.frozen_parameters, *options.freeze))
    newest = newest_checkpoint(run)
    if newest is None:
        parts = range(-(-min(FITTED_PICTURES, len(training)) // 64))
        squares = (training.squares(training.batch(64, options.seed, part)).to(device) for part in parts)
        stage.eval().fit_to(squares)
    turns, optimizers = Turns(stage), build_optimizers(stage, options)
    # By what stands after "averaged" and "final" in the names of their files and folders. The first is reported on.
    averages = {"": Averaged(stage, half_life(options.average_half_life))}
    averages |= {f"-{width:g}": Averaged(stage, power(width)) for width in options.average_widths}
    averaged = averages[""]
    state: dict[str, Any] = {"step": 0}
    if newest is not None:
        state = load_checkpoint(newest, config, stage, averages, optimizers, accelerator.scaler, pictures.digest)
    stage.train()
    if options.recompute:
        recompute_blocks(stage)
    if options.compile:
        stage.compile(dynamic=False)
    wrapped, *prepared = accelerator.prepare(stage, *optimizers.values())
    optimizers = dict(zip(optimizers, prepared, strict=True))

    batch_size = options.batch_size
    steps, first = math.ceil(options.samples / batch_size), state["step"]
    share = batch_size // accelerator.num_processes
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        for unfinished in (*run.glob(".checkpoint-*"), *run.glob(".final*")):  # of a process killed while it saved
            shutil.rmtree(unfinished)
        write_log(run, {
            "event": "start", "step": first, "command": command, "commit": started_at,
            "pictures": len(training), "pictures_sha256": pictures.digest, "sets": account,
            "processes": accelerator.num_processes, "device": str(device), "precision": accelerator.mixed_precision,
            "threads": torch.get_num_threads(), "torch": torch.__version__, "config": dataclasses.asdict(config),
        })  # fmt: skip
    progress = tqdm(total=steps, initial=first, disable=not (accelerator.is_main_process and sys.stderr.isatty()))
    if track:
        accelerator.init_trackers(config.name)
    # Since the last report; saved, so that the log continues too.
    losses = {player: state.setdefault(named("losses", player, "_"), []) for player in optimizers}
    clock, worked, clocked = time.perf_counter(), time.process_time(), first
    saved, stopping = clock, False
    cuts = Batches(training, batch_size, options.seed, rank, accelerator.num_processes)
    batches = cuts.of(range(first, steps), device, options.workers)
    while True:
        step, seen = state["step"], state["step"] * batch_size
        finished = step >= steps  # beyond, where the config was made shorter
        if accelerator.is_main_process:
            if step > first and (finished or due(step, options.report_every, batch_size)):
                seconds, cpu = time.perf_counter() - clock, time.process_time() - worked
                shown = held_out.squares(slice(64)).to(device), held_out.labels[:64].to(device)
                values, grid = report(averaged.stage, *shown)
                save_grid(grid, run / f"samples-{seen:08d}.png")
                means = {named("loss", player, "_"): sum(one) / len(one) for player, one in losses.items()}
                entry = {"event": "report", "step": step, "pictures": seen, **means,
                         "pictures_per_second": round((step - clocked) * batch_size / seconds, 2),
                         "cores": round(cpu / seconds, 2), **values}
                write_log(run, entry)
                for tracker in accelerator.trackers:
                    tracker.log({key: value for key, value in entry.items() if key not in ("event", "step")}, step=seen)
                    if tracker.name == "tensorboard":
                        tracker.log_images({"samples": grid[None].float().cpu().numpy()}, step=seen)
                progress.write(json.dumps(entry)) if not progress.disable else print(json.dumps(entry), flush=True)
                for one in losses.values():
                    one.clear()
                clock, worked, clocked = time.perf_counter(), time.process_time(), step
            old = 0 < 60 * options.save_minutes <= time.perf_counter() - saved
            if step > first and (finished or stopping or old or due(step, options.save_every, batch_size)):
                saved = time.perf_counter()
                save_checkpoint(run, state, config, stage, averages, optimizers, accelerator.scaler, pictures.digest)
        if finished or stopping or (stop_after is not None and step - first >= stop_after):
            break

        rgb, labels = next(batches)
        torch.manual_seed(seed_of(options.seed, "noise", step, rank))
        stopping = stop()
        for player, optimizer in optimizers.items():
            trained = turns.begin(player)
            set_learning_rate(optimizer, options, seen)
            total, told = 0.0, (player,) if player else ()
            for part in range(options.accumulation):
                cut = slice(part * share // options.accumulation, (part + 1) * share // options.accumulation)
                last = part == options.accumulation - 1
                with accelerator.accumulate(wrapped) if last else accelerator.no_sync(wrapped):
                    inputs = rgb[cut].contiguous(memory_format=torch.channels_last)
                    loss = wrapped(inputs, labels[cut], *told) / options.accumulation
                    if not loss.requires_grad:
                        raise CheckpointError(
                            "nothing that the loss depends on is trained: freeze less. A stage 1 whose encoder is "
                            "frozen needs noise_levels of at least 1"
                        )
                    accelerator.backward(loss)
                total += loss.item()
            if accelerator.num_processes > 1:  # all stop together, and nobody saves what another one's loss has spoiled
                both = torch.tensor([total, float(stopping)], device=device)
                total, asked = accelerator.reduce(both, "mean").tolist()
                stopping = asked > 0
            norm = accelerator.clip_grad_norm_(trained, options.gradient_clip or math.inf)
            # With fp16 gradients may overflow: the scaler skips such a step. The loss must be finite there too.
            if not math.isfinite(total) or (accelerator.scaler is None and not math.isfinite(norm)):
                raise FloatingPointError(
                    f"at step {step} the loss{of(player)} is {total} and the norm of its gradient {float(norm)}: not "
                    f"finite. The last checkpoint is {newest_checkpoint(run)}; a lower learning_rate may help"
                )
            optimizer.step()
            optimizer.zero_grad()
            losses[player].append(total)
        for average in averages.values():
            average.update(stage, batch_size, seen + batch_size)
        state["step"] += 1
        progress.update()
    progress.close()
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()
    final = run / "final"
    if stopping and not finished:
        raise Terminated(
            f"stopped after step {step}, saved in {newest_checkpoint(run)}. To continue, run the same again: {command}"
        )
    if not finished:
        return None
    digests = accelerator.gather(torch.tensor([digest_of(stage)], device=device)).tolist()
    if len(set(digests)) > 1:
        raise TrainingError(f"the processes ended with different weights ({digests}): they did not synchronize")
    if accelerator.is_main_process:
        for name, average in reversed(averages.items()):  # `final` last: where it is, the run is finished
            average.stage.trained = {
                "config": config.name, "pictures": state["step"] * batch_size, "pictures_sha256": pictures.digest,
                "commit": started_at, "seed": options.seed, "ema": True, "average": name.removeprefix("-"),
            }  # fmt: skip
            average.stage.save_pretrained(run / f"final{name}")
        write_log(run, {
            "event": "end", "step": state["step"], "weights_sha256": sha256_of(final / "model.safetensors"),
            "digest_by_process": digests,
        })  # fmt: skip
    accelerator.wait_for_everyone()
    return final


def digest_of(stage: Stage) -> int:
    """63 bits of the SHA-256 of all parameters: equal where they are equal bit for bit."""
    whole = hashlib.sha256()
    for parameter in stage.parameters():
        whole.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return int.from_bytes(whole.digest()[:8], "big") >> 1


def due(step: int, every: int, batch_size: int) -> bool:
    """Whether a multiple of `every` pictures was passed between the last step and this one."""
    return step * batch_size // every > (step - 1) * batch_size // every


def precision_of(choice: str) -> str:
    """accelerate's mixed_precision: "auto" is bf16 where the hardware has it, elsewhere none (emulated bf16 is
    slower).
    """
    if choice not in ("auto", "no", "bf16", "fp16"):
        raise CheckpointError(f"precision must be auto, no, bf16 or fp16; got {choice!r}")
    device = "cpu" if parse_flag_from_env("ACCELERATE_USE_CPU") else None
    return ("bf16" if hardware_has_bfloat16(device) else "no") if choice == "auto" else choice
