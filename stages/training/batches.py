"""The batches of a run in order, cut where they are needed or ahead of time."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from stages.checkpoint import CheckpointError
from stages.seeds import seed_of
from stages.training.data import Mixture

AHEAD = 2  # batches that each worker cuts before they are asked for


@dataclass(frozen=True)
class Batches(Dataset[tuple[Tensor, Tensor]]):
    """By step: this process's share of the global batch, rgb (B, 3, S, S) in [0, 1] and labels (B,).

    Pictures and cuts come from (seed, step, rank) alone, whoever cuts them.
    """

    pictures: Mixture
    batch_size: int  # over all processes
    seed: int
    rank: int = 0
    processes: int = 1

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        picks = self.pictures.batch(self.batch_size, self.seed, step)[self.rank :: self.processes]
        augmentation = Generator().manual_seed(seed_of(self.seed, "augment", step, self.rank))
        return self.pictures.cuts(picks, augmentation), self.pictures.labels(picks)

    def of(self, steps: range, device: torch.device, workers: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of these steps on a device. workers: processes that cut them on CPU cores ahead of time; with 0
        they are cut where the pictures are, when they are asked for. What differs is at most the last bit.

        Raises CheckpointError where processes can not share the pictures.
        """
        if not workers:
            yield from map(self.__getitem__, steps)
            return
        if "fork" not in multiprocessing.get_all_start_methods():
            raise CheckpointError(f"training.workers need a system that forks processes; set 0, got {workers}")
        loader = DataLoader(
            self, batch_size=None, sampler=steps, num_workers=workers, prefetch_factor=AHEAD,
            pin_memory=device.type == "cuda", worker_init_fn=_left_alone, multiprocessing_context="fork",
        )  # fmt: skip
        for rgb, labels in loader:
            yield rgb.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def _left_alone(worker: int) -> None:
    """A worker ends with its run: SIGTERM, which is often sent to all of a group, lets the run save first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
