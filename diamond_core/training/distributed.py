"""Several processes that train one agent, each with its share of every batch: started by `launch`, or by `torchrun`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

LAUNCHER = "DIAMOND_LAUNCHER"
"""The variable that tells a process who launched it."""


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


def launch(command: list[str], n: int) -> int:
    """Runs a command n times as one group on this machine, waits, and returns 0 or, as a shell has it, what one that
    failed ended with.

    They share this process's threads. SIGINT, SIGTERM and SIGHUP are passed on, to each once, though a terminal's
    Ctrl-C reaches a whole process group. Where one process falls the others are ended: they would wait for it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // n)), "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(port), "WORLD_SIZE": str(n), LAUNCHER: str(os.getpid())}
    apart: dict[str, Any] = {"start_new_session": True,
                             "creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: object) -> None:
        for child in children:
            child.send_signal(getattr(signal, "CTRL_BREAK_EVENT", number))

    numbers = {signal.SIGINT, signal.SIGTERM}
    # a terminal that is closed says nothing to what was set apart; under nohup it ends nobody
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.add(signal.SIGHUP)
    before = {s: signal.signal(s, pass_on) for s in numbers}
    try:
        for rank in map(str, range(n)):
            children.append(subprocess.Popen(command, env=shared | {"RANK": rank, "LOCAL_RANK": rank}, **apart))
        while None in (codes := [child.poll() for child in children]) and not any(codes):
            time.sleep(0.05)
        return next((code if code > 0 else 128 - code for code in codes if code), 0)
    finally:
        for child in children:
            child.kill()
            child.wait()
        for s, handler in before.items():
            signal.signal(s, handler)


def is_member() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def is_first() -> bool:
    """Whether this process speaks for the others, before they have joined and after."""
    return int(os.environ.get("RANK", 0)) == 0


def is_orphan() -> bool:
    """Whether the process that launched this one is gone."""
    return os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid())


def on_cuda(device: str) -> bool:
    """Whether processes for this device compute on GPUs, each on its own."""
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def join(device: str) -> Processes:
    """Joins the other processes where there are some: nccl on CUDA, gloo elsewhere."""
    if not is_member():
        return Processes()
    if not dist.is_initialized():
        # gloo beside nccl carries the votes, which are Python objects on the CPU; all wait while the main one plays,
        # for hours in a game that stalls
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda(device) else "gloo", timeout=timedelta(days=7))
    processes = Processes(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    if on_cuda(device):
        torch.cuda.set_device(processes.local_rank)
    return processes


def leave() -> None:
    """Leaves the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
