"""Several workers as one: who this process is, what must be summed, and when all stop together."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Topology:
    """This process among its peers."""

    rank: int
    """Its number, 0 the main one."""
    world_size: int
    """How many there are."""
    device: torch.device
    """The device it computes on."""


def init_from_env() -> Topology:
    """Join the process group that torchrun described in the environment; under plain python, be alone.

    The caller ends with `torch.distributed.destroy_process_group()` where `world_size` is over 1.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = default_device()
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Topology(rank, world_size, device)


def default_device() -> torch.device:
    """The GPU of this worker's LOCAL_RANK where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    # Before any collective: NCCL takes the current device.
    torch.cuda.set_device(device)
    return device


def sum_over_workers(values: Tensor, world_size: int) -> Tensor:
    """Sum in place over all workers."""
    if world_size > 1:
        dist.all_reduce(values)
    return values


def from_main_worker(value: str | None, world_size: int) -> str | None:
    """The value that rank 0 passed, on every worker."""
    if world_size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def wait_for_all(world_size: int) -> None:
    """Return once every worker has come here."""
    if world_size > 1:
        dist.barrier()


@contextmanager
def sigterm_sets(event: threading.Event) -> Iterator[None]:
    """While the block runs, SIGTERM sets `event` instead of ending the process.

    Python allows handlers in the main thread only; elsewhere (a Ray Train worker) this does nothing, and whoever
    goes on begins at the newest checkpoint.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        event.set()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
