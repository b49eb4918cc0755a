"""Several processes through ``torchrun``: set-up, agreement and averages.

Nothing here guesses: without torchrun's variables it is one process; with them the process
group must come up, or there is an error. Never a silent run of N separate trainings.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextlib.contextmanager
def process_group(device: str = "auto") -> Iterator[World]:
    """Join the group that torchrun describes (gloo on CPU, nccl on GPUs); leave it at the end.

    Raises:
        ValueError: incomplete torchrun variables or fewer GPUs than processes.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    given = [name for name in names[:3] if name in os.environ]
    if not given:
        yield World()
        return
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ValueError(f"{', '.join(given)} set but {', '.join(missing)} not: start several "
                         "processes with torchrun, or unset them for one process")
    world = World(*(int(os.environ[name]) for name in names[:3]))
    use_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if use_gpu:
        if world.local_rank >= torch.cuda.device_count():
            raise ValueError(f"process {world.local_rank} has no GPU: this machine has "
                             f"{torch.cuda.device_count()}; lower --nproc-per-node")
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group("nccl" if use_gpu else "gloo")
    try:
        yield world
        dist.barrier()
    finally:
        gc.collect()  # what still refers to the group would abort the process at exit
        dist.destroy_process_group()


def any_process(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """For each flag, whether it is set in any process; all processes get the same answer."""
    if not dist.is_initialized():
        return list(flags)
    values = torch.tensor([float(flag) for flag in flags], device=device)
    dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return [bool(value) for value in values.tolist()]


def mean_over_processes(value: Tensor) -> Tensor:
    """Average of a tensor over all processes (no gradient)."""
    value = value.detach()
    if not dist.is_initialized():
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()


def gather_objects(value: Any) -> list[Any]:
    """The value of every process, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()
