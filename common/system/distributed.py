"""Several processes, started by torchrun: torch's collectives, which do nothing where there is one process."""

import atexit
import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = timedelta(hours=2)  # for a large data set to be decoded by one process


def init_process_group(device: torch.device) -> None:
    """Join the other processes of this job, of which this one computes on `device`; torchrun says where they are."""
    if dist.is_initialized():
        return
    store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # What dead processes left in the store would mislead those after a restart: torch issue 135712.
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    backend, device_id = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT, device_id=device_id)
    atexit.register(dist.destroy_process_group)  # or its threads may abort a process that ends well


def all_reduce(values: torch.Tensor) -> torch.Tensor:
    """Return `values` summed over all processes."""
    if dist.is_initialized():
        dist.all_reduce(values := values.clone())
    return values


def ddp_scale(weight: torch.Tensor) -> torch.Tensor:
    """Return `weight` (0-d float) over its mean in all processes: 1 where there is one, 0 where nothing weighs.

    DDP averages gradients. A loss times this has the gradient of the mean over the pixels of all processes.
    """
    mean = all_reduce(weight) / dist.get_world_size() if dist.is_initialized() else weight
    return weight / mean.clamp(min=1e-12)


def all_gather(value: object) -> list:
    """Return the `value` of every process, in order of rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def data_parallel(model: nn.Module) -> nn.Module:
    """Return the module that computes what `model` does and averages gradients over all processes."""
    if not dist.is_initialized():
        return model
    if dist.get_backend() == "nccl":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place; it does not exist for processors
    return DistributedDataParallel(model)


def broadcast_buffers(model: nn.Module) -> None:
    """Give the model's buffers in every process the values that they have in the main one."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def barrier() -> None:
    """Wait until every process is here."""
    if dist.is_initialized():
        dist.barrier()


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Let the first process on each machine through the block, then the others, which then find its work done."""
    main = not dist.is_initialized() or os.environ["LOCAL_RANK"] == "0"
    if not main:
        barrier()
    yield
    if main:
        barrier()
