"""Run many trainings, each in its own process, and skip the finished ones."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from common.reporting.results import REPOSITORY
from common.system.errors import UserError
from common.system.files import read_json

FINISHED = "the training has finished\n"  # last line of a log


def train_all(jobs: dict[str, list], title: str) -> dict[str, Path]:
    """Run a script for each job; return the folders of the runs.

    On a CPU, one process per core runs with one thread; on a GPU, one process runs at a time. A finished run is not run
    again; an interrupted run continues. To train a run anew or with other flags, delete its folder.

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


def code_of(script: Path) -> str:
    """Return the text of a script after its docstring."""
    return script.read_text(encoding="utf-8").split('"""', 2)[-1]


def train(name: str, script: Path | str, *flags: str) -> str:
    """Run a script as run `name`, unless this run is finished; return its score, or why it failed."""
    folder, log = Path("runs", name), Path("runs", f"{name}.log")
    given = [str(REPOSITORY / script), *map(str, flags), "--name", name]
    before = [part for part in read_json(folder / "config.json").get("command", given) if part != "--resume"]
    kept = folder / f"{Path(script).stem}.py"
    if kept.exists() and code_of(kept) != code_of(REPOSITORY / script):
        return f"failed: {folder} was trained with another version of the script; delete the folder to train it anew"
    if before[1:] != given[1:]:
        return f"failed: {folder} was trained with {' '.join(before[1:-2])}; delete the folder to train it anew"
    # The first part of a training leaves a test.json, too.
    if not (folder / "test.json").exists() or not (log.exists() and log.read_text().endswith(FINISHED)):
        resume = ["--resume"] if (folder / "last.pt").exists() else []
        if not resume:  # a process killed in its first epoch leaves a folder, which holds the name
            shutil.rmtree(folder, ignore_errors=True)
            Path(f"best_{name}.pt").unlink(missing_ok=True)
        command = [sys.executable, *given, *resume]
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as file:
            threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
            done = subprocess.run(command, stdout=file, stderr=file, env={**os.environ, **threads})
        if done.returncode:
            return f"failed: {log.read_text().strip().splitlines()[-1]} (see {log})"
        with log.open("a") as file:
            file.write(FINISHED)
    test = read_json(folder / "test.json")
    return f"test mIoU {test['scores']['mIoU']:.3f}" if test else f"failed: it left no test.json (see {log})"
