"""How many seconds does benchmarks/race.py take, and what does each of its ideas bring?

Run       python benchmarks/races.py                  # minutes, on cores that nothing else uses
          python benchmarks/races.py --write          # and into results/race.json

Every race is a process of its own, timed from its start to its end. They take turns: all of one seed, then the next.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from common.cli import cli
from common.reporting.results import REPOSITORY, RESULTS, machine
from common.system.files import write_json

RACES = {  # and their flags
    "to 0.75": "",
    "to 0.65": "--epochs 1",
    "AdamW at its best rate": "--no-muon --lr 0.006",
    "all steps at full size": "--small 0",
}


def main(
    repeats: int = 5,  # seeds
    write: bool = False,  # write the table to results/race.json
):
    runs = {name: [] for name in RACES}
    for seed in range(repeats):
        for name, flags in RACES.items():
            start = time.perf_counter()
            command = [sys.executable, REPOSITORY / "benchmarks/race.py", "--seed", str(seed), *flags.split()]
            miou = float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
            runs[name].append((time.perf_counter() - start, miou))
    rows = {}
    for name in RACES:
        seconds, mious = zip(*runs[name], strict=True)
        spread = statistics.stdev(mious) if repeats > 1 else 0
        values = {"seconds": statistics.mean(seconds), "miou": statistics.mean(mious), "miou_sd": spread}
        rows[name] = {key: round(value, 4) for key, value in values.items()}
        print("{seconds:5.1f} s  mIoU {miou:.3f} ± {miou_sd:.3f}".format(**rows[name]), f"  {name}  {RACES[name]}")
    if write:
        about = {"flags": RACES, "repeats": repeats, "machine": machine(), "torch": torch.__version__}
        write_json(RESULTS / "race.json", {"rows": rows} | about)
    return rows


if __name__ == "__main__":
    cli(main)
