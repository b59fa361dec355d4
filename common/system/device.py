"""The choice of device and precision, and a setting of the memory allocator."""

import ctypes
import functools
import os
import time

import torch
from torch.nn import functional as F

from common.system.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the first CUDA GPU, else Apple's GPU, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        available = {"cpu": True, "mps": torch.backends.mps.is_available()}
        available["cuda"] = torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    except RuntimeError:
        raise UserError(f"--device {name} is not a device; use auto, cpu, cuda, cuda:1 or mps") from None
    if not available.get(device.type):
        raise UserError(f"--device {name} is not available to this installation of torch; use auto or cpu")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def choose_precision(name: str, device: torch.device) -> str:
    """Return "bf16", "fp16" or "fp32".

    "auto" chooses bf16 on GPUs that have it and on CPUs where it is clearly faster than fp32, fp16 on other NVIDIA GPUs
    (T4, RTX 20xx), and fp32 elsewhere.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and bf16_time() < 0.9 else "fp32"


@functools.cache
def bf16_time() -> float:
    """Return this CPU's time for a convolution and its gradients in bf16, divided by its time in fp32.

    The instruction set is no guide: with AVX512_BF16, an AMD EPYC has 0.5 and an Intel Xeon without AMX 1.3 to 1.6.
    Both types run in turn on one thread, which other programs disturb least, and the fastest of five rounds counts. The
    measurement takes about 30 ms.
    """
    seconds, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16) * 5:
        images = torch.ones(4, 64, 16, 16, dtype=dtype, requires_grad=True)
        weight = torch.ones(64, 64, 3, 3, dtype=dtype, requires_grad=True)
        start = time.thread_time()
        F.conv2d(images.to(memory_format=torch.channels_last), weight, padding=1).sum().backward()
        seconds[dtype] = min(time.thread_time() - start, seconds.get(dtype, float("inf")))
    torch.set_num_threads(threads)
    return seconds[torch.bfloat16] / seconds[torch.float32]


def keep_freed_memory() -> None:
    """Make the C library keep freed memory instead of returning it to the system at once.

    The next training step needs the same memory. The system fills new memory with zeros at its first use, which takes
    up to a third of a step on a CPU. Only glibc, the usual C library of Linux, has this setting.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX in malloc.h
        libc.mallopt(mmap_max, 0)  # put large tensors on the heap too
        libc.mallopt(trim_threshold, -1)  # never shrink the heap
