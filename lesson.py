"""What does each step of the lesson do? Its scripts, three seeds each, and the tables of what came out.

    python lesson.py                                    # on the generated shapes: needs no download
    python lesson.py --dataset voc2012 --seeds 0        # on VOC 2012, one seed alone
    python lesson.py --write                            # and into README.md, docs and scripts
    python lesson.py --write --seeds ""                 # without training, from what is in results/

Each run is a process of its own with one thread, as many at a time as there are cores; on a GPU one at a time. What is
finished is not run again, and what was interrupted goes on. Prints a table of what came out, which is kept in
runs/results/. With --write it is kept in results/, from which the tables in README.md and docs/experiments.md and the
Result lines of the scripts are written.
"""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from common.cli import cli
from common.experiment import code_of, fingerprint
from common.metrics import MIOU
from common.reporting.results import REPOSITORY, RESULTS, SEEDS, keep_run, lesson_table, load_results, mean, written
from common.reporting.scores import duration
from common.system.errors import UserError
from common.system.files import read_json, write_text

SCRIPTS = ["train", *(f"train_{step}" for step in ["4_a", "4_b", "4_c", "4_d", "4_e", "5_a", "5_b", "5_c"])]
# All scripts see a data set at the same size and for as many epochs.
SETTINGS = {
    "shapes": "--image-size 96 --epochs 5",
    "voc2007": "--image-size 128 --epochs 30",
    "voc2012": "--image-size 128 --epochs 6",
}
OF_ONE = {"train": "--patience 0", "train_5_c": "--width 16"}  # flags of a single script


def main(
    dataset: str = "shapes",  # shapes, voc2007 or voc2012
    seeds: str = " ".join(map(str, range(SEEDS))),  # one run of each script with each of them
    scripts: str = " ".join(SCRIPTS),  # which of them
    encoder: str = "resnet18",  # of train_5_b.py
    encoder_weights: str = "",  # file or folder with its ImageNet weights, if they are not to be fetched
    data_root: Path = Path("data"),  # folder that download.py filled
    write: bool = False,  # keep what came out in results/, and write all tables
):
    """Run what is missing, keep it, print the table of the data set."""
    if dataset not in SETTINGS:
        raise UserError(f"--dataset {dataset} is none of the lesson's: {', '.join(SETTINGS)}")
    commands = {}
    for script in scripts.split():
        flags = f"--dataset {dataset} {SETTINGS[dataset]} {OF_ONE.get(script, '')}".split()
        flags += ["--encoder", encoder] if script == "train_5_b" else []
        commands[script] = [f"{script}.py", *flags]
    store = RESULTS if write else Path("runs/results")
    own = {"train_5_b": ["--encoder-weights", encoder_weights]} if encoder_weights else {}

    def train(job: tuple[str, str]) -> str:
        script, seed = job
        command = commands[script]
        flags = [*command[1:], *own.get(script, []), "--data-root", str(data_root), "--seed", seed]
        folder = finished_run(REPOSITORY / command[0], f"lesson-{dataset}-{script}-s{seed}", flags)
        if isinstance(folder, str):
            return folder
        with keeping:
            keep_run(folder, f"python {' '.join(command)}", store / dataset / f"{script}.json")
        return f"mIoU {read_json(folder / 'test.json')['scores'][MIOU]:.3f}"

    jobs, keeping = [(script, seed) for seed in seeds.split() for script in commands], threading.Lock()
    at_once, known = 1 if torch.cuda.is_available() else os.cpu_count(), load_results(RESULTS)
    minutes = sum(mean(known[dataset, script], "minutes") for script, _ in jobs if (dataset, script) in known) / at_once
    print(f"{len(jobs)} runs on {dataset}, {at_once} at a time; they took us {duration(60 * minutes)}")
    failed = 0
    with ThreadPoolExecutor(at_once) as pool:
        for job, line in zip(jobs, tqdm(pool.map(train, jobs), "lesson", len(jobs), unit=" runs"), strict=True):
            tqdm.write(f"{job[0]}, seed {job[1]}: {line}")
            failed += line.startswith("failed")
    print("\n" + lesson_table(load_results(store), dataset, SCRIPTS))
    for path, text in written(load_results(RESULTS), SCRIPTS).items() if write else ():
        write_text(path, text)
    if failed:
        raise UserError(f"{failed} of {len(jobs)} runs failed, as said above; the same command runs them again")


def finished_run(script: Path, name: str, flags: list[str]) -> Path | str:
    """Run a script under that name, go on with it, or find it finished; return its folder, or why it failed."""
    code = fingerprint(code_of(script.read_text(encoding="utf-8")))
    for _ in range(2):  # the second time it is finished
        folders = [path for end in ("", "-[0-9]*") for path in Path("runs").glob(f"{name}{end}/config.json")]
        folders.sort(key=lambda path: path.stat().st_mtime)
        found = [path.parent for path in folders if read_json(path)["fingerprints"].get("script") == code]
        if found and (found[-1] / "test.json").exists():
            return found[-1]
        log = Path("runs", f"{name}.log")
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as file:
            done = subprocess.run(
                [sys.executable, str(script), *flags, "--name", name, *["--resume"] * bool(found)],
                stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        if done.returncode:
            return f"failed: {log.read_text().strip().splitlines()[-1]} (see {log})"
    return f"failed: it left no test.json (see {log})"


if __name__ == "__main__":
    cli(main)
