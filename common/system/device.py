"""The device and the precision to compute in, and how its memory is kept."""

import ctypes
import functools
import os
import time

import torch
from torch.nn import functional as F

from common.system.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; for "auto" the first GPU, else Apple's, else the processor."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        available = {"cpu": True, "mps": torch.backends.mps.is_available()}
        available["cuda"] = torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    except RuntimeError:
        raise UserError(f"--device {name} is no device; use auto, cpu, cuda, cuda:1 or mps") from None
    if not available.get(device.type):
        raise UserError(f"--device {name} is not available to this installation of torch; use auto or cpu")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def choose_precision(name: str, device: torch.device) -> str:
    """Return "bf16", "fp16" or "fp32".

    "auto" is bf16 on a processor where it is clearly faster than fp32, and on GPUs that have it; fp16 on other NVIDIA
    GPUs (T4, RTX 20xx); fp32 elsewhere.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and bf16_time() < 0.8 else "fp32"


@functools.cache
def bf16_time() -> float:
    """Return how long this processor takes for a convolution and its gradients in bf16, as a multiple of fp32.

    The instruction set does not tell: AVX512_BF16 gives 0.5 on an AMD EPYC and 1.3 to 1.6 on an Intel Xeon without AMX.
    Both types take turns on one thread, which other programs disturb least, and the fastest of five rounds counts. This
    takes about 30 ms.
    """
    seconds, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16) * 5:
        images = torch.ones(4, 64, 16, 16, dtype=dtype, requires_grad=True)
        weight = torch.ones(64, 64, 3, 3, dtype=dtype, requires_grad=True)
        start = time.perf_counter()
        F.conv2d(images.to(memory_format=torch.channels_last), weight, padding=1).sum().backward()
        seconds[dtype] = min(time.perf_counter() - start, seconds.get(dtype, float("inf")))
    torch.set_num_threads(threads)
    return seconds[torch.bfloat16] / seconds[torch.float32]


def keep_freed_memory() -> None:
    """Have the C library keep the memory that is freed, instead of giving it back to the system at once.

    The next training step needs as much again. Memory fresh from the system is filled with zeros, page by page when it
    is first touched: up to a third of a step's time on a CPU. Only glibc, Linux's usual C library, can be told so.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_max = -1, -4  # as malloc.h numbers them
        libc.mallopt(mmap_max, 0)  # large tensors lie on the heap as all others, ...
        libc.mallopt(trim_threshold, -1)  # which never shrinks
