"""The one training loop, for every stage and kind.

A run is a folder: log.jsonl, sample grids, checkpoints (the newest two) and, at the end, `final/`, the averaged
weights as the pipeline loads them. Order of a step as in EDM2: report, save, done?, loss, step, average. Pictures,
augmentation and noise of a step come from (seed, step, rank) alone, so a killed run continues on the same loss
curve, bit for bit.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, parse_flag_from_env
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from stages.averages import Averaged, half_life, power
from stages.checkpoint import CheckpointError, Stage, config_from_dict, replaced_folder, sha256_of
from stages.data import Pictures, augmented, batch_indices, seed_of
from stages.precision import hardware_has_bfloat16

FITTED_PICTURES = 1024  # shown to `Stage.fit_to`
OPTIMIZERS, SCHEDULES = ("adamw", "rmsprop"), ("cosine", "constant")

Report = Callable[[Stage, Tensor], tuple[dict[str, float], Tensor]]
"""(stage, held-out rgb (N, 3, S, S)) -> named values for the log, and a picture grid (3, H, W) in [0, 1]."""


class TrainingError(RuntimeError):
    """The processes of a run are not those that were asked for, or no longer hold the same weights."""


@dataclass(frozen=True)
class DataConfig:
    name: str = "photos64"  # of the set in the data folder
    side: int = 64
    holdout: int = 1000  # last pictures of `train`, never trained on: for the log and for choices
    limit: int = 0  # take only the first pictures (0: all)
    doubled: bool = False  # take those of half of `side` too, enlarged
    also: str = ""  # another set to learn from, reduced to `side`; a folder of pictures has no other set
    also_holdout: int = 133  # last pictures of it that are left out
    also_copies: int = 1  # how often each of it comes in an epoch
    also_crops: int = 0  # squares cut from each of it at twice `side`, beside the whole


@dataclass(frozen=True)
class TrainingConfig:
    start_from: str = ""  # a config whose finished run gives the first weights; trained first where it is not
    pretrained_backbone: bool = False  # start the encoder from public ImageNet weights
    freeze: tuple[str, ...] = ()  # prefixes of parameters that stay as they are
    samples: int = 100_000  # pictures to see in all, over all devices
    batch_size: int = 48  # pictures per optimizer step, over all devices
    accumulation: int = 1  # parts a device cuts its share of the batch into
    optimizer: str = "adamw"  # or "rmsprop" with Keras' defaults, as ColTran
    schedule: str = "cosine"  # after the warm-up half a cosine down to zero; or "constant"
    learning_rate: float = 4e-4
    backbone_learning_rate: float = 0.0  # of parameters under `encoder.backbone`; 0: as all others
    warmup: int = 5_000  # pictures until the full learning rate
    weight_decay: float = 0.01
    gradient_clip: float = 1.0  # of the gradient's norm; 0: none
    average_half_life: int = 10_000  # pictures; of the exponential average of the weights
    average_widths: tuple[float, ...] = ()  # of further averages, power functions, relative to the run's length
    compile: bool = False  # the training pass, by torch.compile: a minute or more at the start
    recompute: bool = False  # the insides of blocks in the backward pass: less memory, more time
    precision: str = "auto"  # bf16 where the hardware has it; "no", "bf16", "fp16"
    seed: int = 0
    report_every: int = 10_000  # pictures
    save_every: int = 20_000  # pictures


@dataclass(frozen=True)
class Config:
    """A TOML file of configs/: which stage and kind, its network, its data, its training."""

    name: str
    stage: int
    kind: str
    network: Any
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @staticmethod
    def read(path: str | Path) -> Config:
        """Raises CheckpointError for unknown keys, unknown kinds and values of the wrong type."""
        from stages.kinds import kind_of

        path = Path(path)
        try:
            table = tomllib.loads(path.read_text())
        except OSError as error:
            raise CheckpointError(f"no config {path}; those that ship are in configs/") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} is not TOML: {error}") from error
        unknown = sorted(table.keys() - {"stage", "kind", "network", "data", "training"})
        if unknown:
            raise CheckpointError(f"unknown keys {unknown} in {path}; known: stage, kind, network, data, training")
        if type(table.get("stage")) is not int or type(table.get("kind")) is not str:
            raise CheckpointError(f'{path} must begin with stage and kind, like: stage = 1, kind = "diffusion"')
        network_class, _ = kind_of(table["stage"], table["kind"])
        if "tuned" in table.get("network", {}):
            raise CheckpointError(f"{path}: steps are tuned once training is finished (train_scripts/tune_steps.py); "
                                  "leave out `tuned`")
        return Config(
            path.stem, table["stage"], table["kind"],
            config_from_dict(network_class, table.get("network", {})),
            config_from_dict(DataConfig, table.get("data", {})),
            config_from_dict(TrainingConfig, table.get("training", {})),
        )  # fmt: skip


def train(
    config: Config,
    stage: Stage,
    pictures: Pictures,
    run: Path,
    report: Report,
    *,
    command: str = "",
    expect_world: int | None = None,
    stop_after: int | None = None,
    track: str | None = None,
) -> Path | None:
    """Trains `stage` to the end of its config, continuing what `run` holds; returns the folder of the final weights.

    pictures: the whole training split; its last config.data.holdout pictures are only reported on
    expect_world: processes there must be; TrainingError otherwise (accelerate starts fewer without a word)
    stop_after: steps after which to stop without saving, as if killed (tests); returns None then
    track: a tracker of accelerate's that gets the reports too, "tensorboard" for instance; files go to `run`
    Raises FloatingPointError when the loss is not finite, CheckpointError when `run` holds another run.
    """
    options = config.training
    for name in ("samples", "batch_size", "accumulation", "average_half_life", "report_every", "save_every"):
        if getattr(options, name) < 1:
            raise CheckpointError(f"training.{name} must be at least 1; got {getattr(options, name)}")
    for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        if getattr(options, name) not in known:
            raise CheckpointError(f"training.{name} must be one of {known}; got {getattr(options, name)!r}")
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
    training, held_out = pictures.split(config.data.holdout)
    training = dataclasses.replace(
        training, images=training.images.to(device), labels=training.labels.to(device),
        rows=None if training.rows is None else training.rows.to(device),
    )  # fmt: skip

    stage.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(stage, options.freeze)
    newest = newest_checkpoint(run)
    if newest is None:
        shown = torch.arange(0, len(training), max(1, len(training) // FITTED_PICTURES))[:FITTED_PICTURES]
        stage.eval().fit_to(training.rgb(part.to(device)) for part in shown.split(64))
    optimizer = build_optimizer(stage, options)
    # By what stands after "averaged" and "final" in the names of their files and folders. The first is reported on.
    averages = {"": Averaged(stage, half_life(options.average_half_life))}
    averages |= {f"-{width:g}": Averaged(stage, power(width)) for width in options.average_widths}
    averaged = averages[""]
    state: dict[str, Any] = {"step": 0}
    if newest is not None:
        state = load_checkpoint(newest, config, stage, averages, optimizer, accelerator.scaler, pictures.digest)
    stage.train()
    if options.recompute:
        recompute_blocks(stage)
    if options.compile:
        stage.compile(dynamic=False)
    wrapped, optimizer = accelerator.prepare(stage, optimizer)

    batch_size = options.batch_size
    steps, first = math.ceil(options.samples / batch_size), state["step"]
    share = batch_size // accelerator.num_processes
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        for unfinished in (*run.glob(".checkpoint-*"), *run.glob(".final*")):  # of a process killed while it saved
            shutil.rmtree(unfinished)
        write_log(run, {
            "event": "start", "step": first, "command": command or " ".join(sys.argv), "commit": started_at,
            "pictures": len(training), "pictures_sha256": pictures.digest, "dropped": pictures.dropped,
            "processes": accelerator.num_processes, "device": str(device), "precision": accelerator.mixed_precision,
            "threads": torch.get_num_threads(), "torch": torch.__version__, "config": dataclasses.asdict(config),
        })  # fmt: skip
    progress = tqdm(total=steps, initial=first, disable=not (accelerator.is_main_process and sys.stderr.isatty()))
    if track:
        accelerator.init_trackers(config.name)
    losses = state.setdefault("losses", [])  # since the last report; saved, so that the log continues too
    clock, clocked = time.perf_counter(), first
    while True:
        step, seen = state["step"], state["step"] * batch_size
        finished = step >= steps  # beyond, where the config was made shorter
        if accelerator.is_main_process:
            if step > first and (finished or due(step, options.report_every, batch_size)):
                rate = (step - clocked) * batch_size / (time.perf_counter() - clock)
                values, grid = report(averaged.stage, held_out.rgb(slice(64)).to(device))
                save_grid(grid, run / f"samples-{seen:08d}.png")
                entry = {"event": "report", "step": step, "pictures": seen, "loss": sum(losses) / len(losses),
                         "pictures_per_second": round(rate, 2), **values}
                write_log(run, entry)
                for tracker in accelerator.trackers:
                    tracker.log({key: value for key, value in entry.items() if key not in ("event", "step")}, step=seen)
                    if tracker.name == "tensorboard":
                        tracker.log_images({"samples": grid[None].float().cpu().numpy()}, step=seen)
                progress.write(json.dumps(entry)) if not progress.disable else print(json.dumps(entry), flush=True)
                losses.clear()
                clock, clocked = time.perf_counter(), step
            if step > first and (finished or due(step, options.save_every, batch_size)):
                save_checkpoint(run, state, config, stage, averages, optimizer, accelerator.scaler, pictures.digest)
        if finished or (stop_after is not None and step - first >= stop_after):
            break

        index = batch_indices(len(training), batch_size, options.seed, step)[rank::accelerator.num_processes]
        augmentation = Generator().manual_seed(seed_of(options.seed, "augment", step, rank))
        rgb, labels = augmented(training.rgb(index.to(device)), augmentation), training.labels[index.to(device)]
        torch.manual_seed(seed_of(options.seed, "noise", step, rank))
        set_learning_rate(optimizer, options, seen)
        total = 0.0
        for part in range(options.accumulation):
            cut = slice(part * share // options.accumulation, (part + 1) * share // options.accumulation)
            last = part == options.accumulation - 1
            with accelerator.accumulate(wrapped) if last else accelerator.no_sync(wrapped):
                inputs = rgb[cut].contiguous(memory_format=torch.channels_last)
                loss = wrapped(inputs, labels[cut]) / options.accumulation
                accelerator.backward(loss)
            total += loss.item()
        if accelerator.num_processes > 1:  # all stop together, and nobody saves what another one's loss has spoiled
            total = accelerator.reduce(torch.tensor(total, device=device), "mean").item()
        norm = accelerator.clip_grad_norm_(wrapped.parameters(), options.gradient_clip or math.inf)
        # With fp16 gradients may overflow: the scaler skips such a step. The loss must be finite there too.
        if not math.isfinite(total) or (accelerator.scaler is None and not math.isfinite(norm)):
            raise FloatingPointError(
                f"at step {step} the loss is {total} and the norm of its gradient {float(norm)}: not finite. "
                f"The last checkpoint is {newest_checkpoint(run)}; a lower learning_rate may help"
            )
        optimizer.step()
        optimizer.zero_grad()
        for average in averages.values():
            average.update(stage, batch_size, seen + batch_size)
        state["step"] += 1
        losses.append(total)
        progress.update()
    progress.close()
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()
    final = run / "final"
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


def freeze(stage: Stage, prefixes: tuple[str, ...]) -> None:
    """Parameters whose names begin with a prefix get no gradient; a prefix that fits nothing is an error."""
    for prefix in prefixes:
        hit = [p for name, p in stage.named_parameters() if name.startswith(prefix)]
        if not hit:
            raise CheckpointError(f"freeze: no parameter begins with {prefix!r}")
        for parameter in hit:
            parameter.requires_grad_(False)


def recompute_blocks(module: nn.Module) -> None:
    """Lets the members of every list of blocks compute their insides again in the backward pass instead of keeping them
    (Chen et al. 2016, arXiv 1604.06174).
    """
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            for block in child:
                block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        else:
            recompute_blocks(child)


def build_optimizer(stage: Stage, options: TrainingConfig) -> torch.optim.Optimizer:
    """Weight decay on matrices and kernels only, a learning rate of its own for a pretrained backbone."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in stage.named_parameters():
        if parameter.requires_grad:
            backbone = options.backbone_learning_rate > 0 and name.startswith("encoder.backbone")
            groups.setdefault((backbone, parameter.ndim > 1), []).append(parameter)
    settings = [
        {"params": parameters, "weight_decay": options.weight_decay if matrix else 0.0,
         "peak": options.backbone_learning_rate if backbone else options.learning_rate}
        for (backbone, matrix), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]  # fmt: skip
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(settings, lr=options.learning_rate, alpha=0.9, eps=1e-7)
    return torch.optim.AdamW(settings, lr=options.learning_rate, betas=(0.9, 0.99), eps=1e-8, fused=True)


def set_learning_rate(optimizer: Any, options: TrainingConfig, seen: int) -> None:
    """Linear warm-up, then the schedule, as a function of pictures seen (not of steps or processes)."""
    factor = min(1.0, (seen + options.batch_size) / max(options.warmup, 1))
    if options.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * min(seen / options.samples, 1.0)))
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]


def save_checkpoint(
    run: Path, state: dict, config: Config, stage: Stage, averages: dict[str, Averaged], optimizer: Any, scaler: Any,
    pictures: str,
) -> None:  # fmt: skip
    """All that continuing needs, in a folder that appears complete, with the hash of each file; keeps the newest two.

    scaler: of gradients in fp16, else None; pictures: digest of the pictures that the run learns from
    """
    folder = run / f"checkpoint-{state['step']:08d}"
    with replaced_folder(folder) as fresh:
        averaged = {f"averaged{name}": average.stage for name, average in averages.items()}
        for name, module in ({"weights": stage} | averaged).items():
            tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
            save_file(tensors, fresh / f"{name}.safetensors")
        torch.save(optimizer.state_dict(), fresh / "optimizer.pt")
        record = {"state": state, "config": dataclasses.asdict(config), "pictures_sha256": pictures,
                  "scaler": None if scaler is None else scaler.state_dict(),
                  "sha256": {path.name: sha256_of(path) for path in sorted(fresh.iterdir())}}
        (fresh / "state.json").write_text(json.dumps(record, indent=1))
    for old in sorted(run.glob("checkpoint-*"))[:-2]:
        shutil.rmtree(old)


def newest_checkpoint(run: Path) -> Path | None:
    found = sorted(path for path in run.glob("checkpoint-*") if (path / "state.json").is_file())
    return found[-1] if found else None


def load_checkpoint(
    folder: Path, config: Config, stage: Stage, averages: dict[str, Averaged], optimizer: Any, scaler: Any,
    pictures: str,
) -> dict:  # fmt: skip
    """Restores what `save_checkpoint` wrote, after every hash has matched; returns the loop's state."""
    try:
        record = json.loads((folder / "state.json").read_text())
        saved, digests = record["config"], record["sha256"]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder}/state.json is damaged; delete {folder} to use the one before it") from error
    if identity(saved, config) != identity(dataclasses.asdict(config), config):
        raise CheckpointError(f"{folder} belongs to a run with another config; choose other --runs or delete it")
    if record.get("pictures_sha256", pictures) != pictures:
        raise CheckpointError(f"{folder} belongs to a run on other pictures; choose other --runs or delete it")
    averaged = [f"averaged{name}.safetensors" for name in averages]
    for name in ("weights.safetensors", *averaged, "optimizer.pt"):
        if not (folder / name).is_file() or sha256_of(folder / name) != digests.get(name):
            raise CheckpointError(
                f"{folder / name} is damaged (its hash differs); delete {folder} to use the one before it"
            )
    stage.load_state_dict(load_file(folder / "weights.safetensors"))
    for name, average in zip(averaged, averages.values(), strict=True):
        average.stage.load_state_dict(load_file(folder / name))
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu"))
    if not optimizer.param_groups[0].get("fused"):
        # From before AdamW was fused: the run keeps its arithmetic, and the scaler of fp16 must not ask for the other.
        optimizer._step_supports_amp_scaling = False
    if scaler is not None and record.get("scaler"):
        scaler.load_state_dict(record["scaler"])
    return record["state"]


def identity(values: dict[str, Any], config: Config) -> dict[str, Any]:
    """The part of a config that a run must keep: its length may change, how often it reports and saves, and its memory.

    What has its default is left out: a run from before a key existed goes on.
    values: a config of the kind of `config`, as a dict
    """
    length = {"samples", "report_every", "save_every", "recompute"}
    values = json.loads(json.dumps(values))
    for part in ("network", "data", "training"):
        defaults = json.loads(json.dumps(dataclasses.asdict(type(getattr(config, part))())))
        values[part] = {key: value for key, value in values[part].items()
                        if key not in length and value != defaults.get(key)}  # fmt: skip
    return values


def write_log(run: Path, entry: dict[str, Any]) -> None:
    with open(run / "log.jsonl", "a") as file:
        file.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S"), **entry}) + "\n")


def save_grid(grid: Tensor, path: Path) -> None:
    pixels = (grid.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(path)


def commit() -> str:
    """The checked-out commit, with "+" where the tree differs from it; "unknown" outside a repository."""
    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
