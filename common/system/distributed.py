"""Several processes, started by torchrun: torch's collectives, which do nothing in a single process."""

import atexit
import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = timedelta(hours=2)  # enough for one process to decode a large data set


def init_process_group(device: torch.device) -> None:
    """Join the process group that torchrun describes; this process computes on `device`."""
    if dist.is_initialized():
        return
    store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # After a restart, old entries of dead processes in the store would mislead the new ones: torch issue 135712.
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    backend, device_id = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT, device_id=device_id)
    atexit.register(dist.destroy_process_group)  # without it, its threads may abort a process that has succeeded


def all_reduce(values: torch.Tensor) -> torch.Tensor:
    """Return `values` summed over all processes."""
    if dist.is_initialized():
        dist.all_reduce(values := values.clone())
    return values


def ddp_scale(weight: torch.Tensor) -> torch.Tensor:
    """Return `weight` (0-d float) divided by its mean over all processes; 1 with one process, 0 if all weights are 0.

    DDP averages gradients over processes. Multiply the loss by this factor to get the gradient of the mean over the
    pixels of all processes.
    """
    mean = all_reduce(weight) / dist.get_world_size() if dist.is_initialized() else weight
    return weight / mean.clamp(min=1e-12)


def all_gather(value: object) -> list:
    """Return the `value` of each process, ordered by rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def data_parallel(model: nn.Module) -> nn.Module:
    """Return `model` wrapped in DDP, which averages gradients over all processes."""
    if not dist.is_initialized():
        return model
    if dist.get_backend() == "nccl":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place; there is none for CPUs
    return DistributedDataParallel(model)


def broadcast_buffers(model: nn.Module) -> None:
    """Copy the model's buffers from the main process to all others."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def barrier() -> None:
    """Wait until every process has called this."""
    if dist.is_initialized():
        dist.barrier()


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block in the first process of each machine, then in the others, which find its work done."""
    main = not dist.is_initialized() or os.environ["LOCAL_RANK"] == "0"
    if not main:
        barrier()
    yield
    if main:
        barrier()
