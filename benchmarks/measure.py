"""Times that can be compared: taken in turn on one machine, medians of them, and their ratios."""

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
    """Call each of `candidates` in turn, `repeats` times after a first time.

    In turn, so that whatever else the machine does meets all of them.

    Args:
        tutorial: the candidate that leaves memory to the C library.

    Returns:
        The seconds of the first call, which is slower wherever something is set up, and the median of the others.
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
    torch.ones(2**29, dtype=torch.uint8)  # 512 MiB, lest the next candidate pay for fresh pages


def print_table(title: str, rates: dict[str, float], plain: list[str]) -> dict[str, float]:
    """Print `rates`, in images/s, with their ratios to the best of the `plain` ones and to the last, the tutorial's.

    Returns:
        `rates`, the best plain one first.
    """
    best = max(plain, key=rates.get)
    rates = {best: rates[best]} | rates
    print(f"\n{title}, torch {torch.__version__}\n{'images per second':>55}{'to best':>10}{'to tutorial':>13}")
    for name, rate in rates.items():
        print(f"  {name:<38}{rate:>15.4g}{rate / rates[best]:>10.2f}{rate / rates[plain[-1]]:>13.2f}")
    return rates
