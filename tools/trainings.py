"""Run many trainings, each in its own process, and skip the finished ones."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from common.run import remove_if_empty
from common.system.errors import UserError
from common.system.files import read_json

REPOSITORY = Path(__file__).parents[1]


def train_all(jobs: dict[str, list], title: str) -> dict[str, Path]:
    """Run a script for each job; return the folders of the runs.

    On a CPU, one process per core runs with one thread; on a GPU, one process runs at a time. A finished run is not run
    again; an interrupted run continues. Delete runs/<name> and best_<name>.pt to train it anew.

    Args:
        jobs: name of the run -> script and flags.
        title: text beside the progress bar.

    Raises:
        UserError: a training failed. All other trainings run first.
    """
    failed, at_once = 0, 1 if torch.cuda.is_available() else os.cpu_count()
    with ThreadPoolExecutor(at_once) as pool:
        results = pool.map(lambda name: train(name, *jobs[name]), jobs)
        for name, line in zip(jobs, tqdm(results, title, len(jobs), unit=" runs"), strict=True):
            tqdm.write(f"{name}: {line}")
            failed += line.startswith("failed")
    if failed:
        raise UserError(f"{failed} of {len(jobs)} runs failed, see above; the same command runs them again")
    return {name: Path("runs", name) for name in jobs}


def train(name: str, script: Path | str, *flags: str) -> str:
    """Run a script as run `name`, unless this run is finished; return its score, or why it failed."""
    folder, log = Path("runs", name), Path("runs", f"{name}.log")
    if not (folder / "test.json").exists():
        remove_if_empty(folder)  # a run killed in its first epoch leaves it
        resume = ["--resume"] if (folder / "last.pt").exists() else []
        command = [sys.executable, str(REPOSITORY / script), *flags, "--name", name, *resume]
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as file:
            threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
            done = subprocess.run(command, stdout=file, stderr=file, env={**os.environ, **threads})
        if done.returncode:
            return f"failed: {log.read_text().strip().splitlines()[-1]} (see {log})"
    test = read_json(folder / "test.json")
    return f"test mIoU {test['scores']['mIoU']:.3f}" if test else f"failed: it left no test.json (see {log})"
