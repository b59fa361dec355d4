"""How long does a run take to start and to end, without its epochs?

Run       python benchmarks/startup.py --write                             # also to results/startup.json
          python benchmarks/startup.py --other path/to/another/checkout    # compare two checkouts

Runs `train.py --dataset shapes --image-size 96 --epochs 1` in its own process, with a single batch in each loop. It
times the lines "epoch 0" (after a batch of validation) and "epoch 1", and the end of the process (after a batch of the
test and four figures). The first run fills the cache. For comparison, one Python process only imports torch, and
another one also imports torch._dynamo, as torch.optim does. Seconds, medians over --repeats.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from common.cli import cli
from common.reporting.results import REPOSITORY, RESULTS, machine
from common.system.files import write_json

COLUMNS, IMPORTS = ("first batch", "last epoch to end", "all"), ("import torch", "import torch, torch._dynamo")
FLAGS = "--dataset shapes --image-size 96 --epochs 1 --device cpu --precision fp32"
ONE_BATCH = """
import functools, runpy, sys
from common.loader import Loader
Loader.__init__ = functools.partialmethod(Loader.__init__, steps=1)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def main(
    repeats: int = 5,  # number of measurements with a warm cache
    other: str = "",  # another checkout of this repository
    write: bool = False,  # write the table to results/startup.json
):
    checkouts = {"this": REPOSITORY} | ({"other": Path(other).resolve()} if other else {})
    times = {f"{name}, {cache} cache": [] for cache in ("no", "warm") for name in checkouts} | {i: [] for i in IMPORTS}
    with tempfile.TemporaryDirectory() as folder:
        for cache in ["no"] + ["warm"] * repeats:
            for name, path in checkouts.items():
                arguments = [ONE_BATCH, str(path / "train.py"), *FLAGS.split(), "--cache-dir", name]
                times[f"{name}, {cache} cache"].append(seconds(arguments, folder, path))
            for statement in IMPORTS:
                times[statement].append(seconds([statement], folder, REPOSITORY))
    rows = {}
    for name, runs in times.items():
        rows[name] = {key: round(statistics.median(run), 2) for key, *run in zip(COLUMNS, *runs, strict=True)}
        print(f"{name:<28}", ", ".join(f"{key} {value:.2f} s" for key, value in rows[name].items()))
    if write:
        write_json(RESULTS / "startup.json", {"rows": rows, "machine": machine(), "torch": torch.__version__})


def seconds(arguments: list[str], folder: str, checkout: Path) -> tuple[float, float, float]:
    """Run `python -c` with `arguments` in `folder`; return the seconds for `COLUMNS`, 0 without epochs."""
    lines, start = {}, time.perf_counter()
    options = {"stdout": subprocess.PIPE, "text": True, "env": os.environ | {"PYTHONPATH": str(checkout)}}
    with subprocess.Popen([sys.executable, "-c", *arguments], cwd=folder, **options) as process:
        for line in process.stdout:
            lines[line[:7]] = time.perf_counter() - start
    end = time.perf_counter() - start
    return lines.get("epoch 0", 0.0), end - lines.get("epoch 1", end), end


if __name__ == "__main__":
    cli(main)
