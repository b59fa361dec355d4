"""Times that can be compared: taken in turn on one machine, medians of them, and their ratio."""

import contextlib
import multiprocessing
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from common.run import Run
from common.system.errors import UserError

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
    total = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    workers = multiprocessing.active_children()  # the system adds them to ours only when they have ended
    if workers:
        try:
            import psutil
        except ImportError:
            raise UserError("--clock cpu needs psutil where there are workers: pip install psutil") from None
        used = [psutil.Process(worker.pid).cpu_times() for worker in workers]
        total += sum(worker.user + worker.system for worker in used)
    return total


def in_turn(
    candidates: dict[str, Callable[[], object]],
    repeats: int,
    clock: Clock,
    run: Run,
    within: dict[str, Callable[[], contextlib.AbstractContextManager]] = types.MappingProxyType({}),
) -> dict[str, tuple[float, float]]:
    """Call each of `candidates` in turn, `repeats` times after a first time.

    In turn, so that whatever else the machine does meets all of them.

    Args:
        within: contexts that candidates run in; to enter and to leave them is not timed.

    Returns:
        The seconds of the first call, which is slower wherever something is set up, and the median of the others.
    """
    times = {name: [] for name in candidates}
    for _ in range(repeats + 1):
        for name, function in candidates.items():
            with within.get(name, contextlib.nullcontext)():
                start = seconds(clock, run)
                function()
                times[name].append(seconds(clock, run) - start)
    return {name: (first, statistics.median(rest)) for name, (first, *rest) in times.items()}


def print_table(title: str, unit: str, rates: dict[str, float], plain: list[str]) -> dict[str, float]:
    """Print `rates`, each in `unit`, with its ratios to the best of the `plain` ones and to the last of them.

    Returns:
        `rates`, the best plain one first.
    """
    best = max(plain, key=rates.get)
    rates = {best: rates[best]} | rates
    print(f"\n{title}, torch {torch.__version__}\n{unit:>55}{'to best':>10}{'to tutorial':>13}")
    for name, rate in rates.items():
        print(f"  {name:<38}{rate:>15.4g}{rate / rates[best]:>10.2f}{rate / rates[plain[-1]]:>13.2f}")
    return rates


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
