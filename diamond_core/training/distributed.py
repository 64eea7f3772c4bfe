"""Several processes that train one agent: started by `torchrun`, each with its share of every batch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Processes:
    """Who this process is among how many."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """The one that plays, writes and speaks."""
        return self.rank == 0

    def share(self, n: int) -> int:
        """This process's part of n rows; row i belongs to process i modulo world_size."""
        return len(range(self.rank, n, self.world_size))

    def barrier(self) -> None:
        """Waits for all."""
        if self.world_size > 1:
            dist.barrier()

    def agree(self, flag: bool) -> bool:
        """Whether any process says yes; all get the same answer."""
        if self.world_size == 1:
            return flag
        return any(self.gather(flag))

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


def join(device: str) -> Processes:
    """Joins the other processes if `torchrun` started this one: nccl on CUDA, gloo elsewhere."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return Processes()
    on_cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if not dist.is_initialized():
        # gloo beside nccl carries the votes, which are Python objects on the CPU; all wait while the main one plays,
        # for hours in a game that stalls
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=timedelta(days=7))
    processes = Processes(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    if on_cuda:
        torch.cuda.set_device(processes.local_rank)
    return processes


def leave() -> None:
    """Leaves the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
