"""How many seconds does benchmarks/race.py take, and what does each of its ideas bring?

Run       python benchmarks/races.py                  # minutes, on cores that nothing else uses
          python benchmarks/races.py --write          # and into results/race.json

Every race is a process of its own, timed from its start to its end. They take turns: all of one seed, then the next.
"""

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from common.cli import cli
from common.reporting.results import REPOSITORY, RESULTS, deviation, machine, mean, say
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
    rows = {name: {"flags": flags, "runs": []} for name, flags in RACES.items()}
    for seed in range(repeats):
        for row in rows.values():
            start = time.perf_counter()
            command = [sys.executable, REPOSITORY / "benchmarks/race.py", "--seed", str(seed), *row["flags"].split()]
            miou = float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
            row["runs"].append({"seed": seed, "seconds": round(time.perf_counter() - start, 2), "miou": miou})
    for name, row in rows.items():
        print(f"{mean(row, 'seconds'):5.1f} s   mIoU {say(mean(row, 'miou'), deviation(row, 'miou'))}   {name}")
    if write:
        write_json(RESULTS / "race.json", {"rows": rows, "machine": machine(), "torch": torch.__version__})
    return rows


if __name__ == "__main__":
    cli(main)
