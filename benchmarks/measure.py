"""Measure candidates in turn on one machine, and print medians and ratios."""

import contextlib
import ctypes
import os
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from common.run import Run
from common.system.device import keep_freed_memory


def in_turn(
    candidates: dict[str, Callable[[], object]],
    repeats: int,
    run: Run,
    clock: Callable[[], float] = time.perf_counter,
    tutorial: str = "",
) -> dict[str, tuple[float, float]]:
    """Call the `candidates` in turn: once to warm up, then `repeats` times.

    Taking turns exposes all candidates to the same other load on the machine.

    Args:
        tutorial: the candidate that runs without `keep_freed_memory`.

    Returns:
        For each candidate, the seconds of the first call, and the median of the others.
    """

    def seconds() -> float:
        if run.device.type == "cuda":
            torch.cuda.synchronize()
        return clock()

    times = {name: [] for name in candidates}
    for _ in range(repeats + 1):
        for name, function in candidates.items():
            with plain_memory() if name == tutorial else contextlib.nullcontext():
                start = seconds()
                function()
                times[name].append(seconds() - start)
    return {name: (first, statistics.median(rest)) for name, (first, *rest) in times.items()}


@contextlib.contextmanager
def plain_memory() -> Iterator[None]:
    """Within the block, undo `keep_freed_memory`."""
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_max = -1, -4
        libc.mallopt(mmap_max, 65536)  # glibc's defaults
        libc.mallopt(trim_threshold, 128 * 1024)
        libc.malloc_trim(0)
    yield
    keep_freed_memory()
    torch.ones(2**29, dtype=torch.uint8)  # touches 512 MiB, so the next candidate does not pay for fresh pages


def print_table(title: str, rates: dict[str, float], plain: list[str]) -> dict[str, float]:
    """Print `rates` in images/s, with ratios to the best of the `plain` candidates and to the last one, the tutorial.

    Returns:
        `rates`, with the best plain candidate first.
    """
    best = max(plain, key=rates.get)
    rates = {best: rates[best]} | rates
    print(f"\n{title}, torch {torch.__version__}\n{'images per second':>55}{'to best':>10}{'to tutorial':>13}")
    for name, rate in rates.items():
        print(f"  {name:<38}{rate:>15.4g}{rate / rates[best]:>10.2f}{rate / rates[plain[-1]]:>13.2f}")
    return rates
