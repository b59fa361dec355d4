"""Times that can be compared: taken in turn on one machine, medians of them, and their ratio."""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from common.run import Run

# What is measured: time as a clock shows it, or processor time of this process and its workers, all threads together,
# which is for a machine that does other things as well.
Clock = Literal["wall", "cpu"]


def seconds(clock: Clock, run: Run) -> float:
    """Return what `clock` shows, once the device has done what it was given."""
    if run.device.type == "cuda":
        torch.cuda.synchronize()
    if clock == "wall":
        return time.perf_counter()
    import resource  # which Windows has not

    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def in_turn(
    candidates: dict[str, Callable[[], object]], repeats: int, clock: Clock, run: Run
) -> dict[str, tuple[float, float]]:
    """Call each of `candidates` in turn, `repeats` times after a first time.

    In turn, so that whatever else the machine does meets all of them.

    Returns:
        The seconds of the first call, which is slower wherever something is set up, and the median of the others.
    """
    times = {name: [] for name in candidates}
    for _ in range(repeats + 1):
        for name, function in candidates.items():
            start = seconds(clock, run)
            function()
            times[name].append(seconds(clock, run) - start)
    return {name: (first, statistics.median(rest)) for name, (first, *rest) in times.items()}


def print_table(title: str, unit: str, rates: dict[str, float]) -> None:
    """Print `rates`, each in `unit`, and its ratio to the first one."""
    print(f"\n{title}, torch {torch.__version__}\n{unit:>55}{'ratio':>10}")
    first = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"  {name:<38}{rate:>15.4g}{rate / first:>10.2f}")


def peak_memory(run: Run) -> float:
    """Return the most MiB that this process has held so far: of the GPU's memory, if it computes there."""
    if run.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # Linux; getrusage would count what the parent held when it started this process
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
