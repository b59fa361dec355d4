"""The device and the precision to compute in, and how its memory is kept."""

import ctypes
import os

import torch

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

    For "auto", that is bf16 where the hardware multiplies bf16 matrices natively, fp16 on other NVIDIA GPUs (T4, RTX
    20xx), and fp32 elsewhere.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    has = torch.cpu.get_capabilities()
    native = device.type == "cpu" and (has.get("avx512_bf16", False) or has.get("amx_bf16", False))
    return "bf16" if native else "fp32"


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
