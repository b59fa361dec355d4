"""Train the scripts of the lesson with three seeds each, and print the table of results.

    python -m tools.lesson                                    # on the generated scenes: needs no download
    python -m tools.lesson --dataset voc2012 --seeds 0        # on VOC 2012, with one seed

Finished runs are not trained again. The numbers are kept in runs/results/.
"""

import os
from pathlib import Path

import torch

from common.cli import cli
from common.reporting.results import RESULTS, SEEDS, keep_run, lesson_table, load_results, mean
from common.reporting.scores import duration
from common.system.errors import UserError
from tools.trainings import train_all

SCRIPTS = ["train", *(f"train_{step}" for step in ["4_a", "4_b", "4_c", "4_d", "4_e", "5_a", "5_b", "5_c"])]
# All scripts use the same image size and number of epochs on a data set.
SETTINGS = {
    "shapes": "--image-size 96 --epochs 5",
    "voc2007": "--image-size 128 --epochs 30",
    "voc2012": "--image-size 128 --epochs 6",
}
MORE = {"train": "--patience 0", "train_5_c": "--width 16"}  # extra flags for some scripts


def main(
    dataset: str = "shapes",  # shapes, voc2007 or voc2012
    seeds: str = " ".join(map(str, range(SEEDS))),  # seeds for each script
    scripts: str = " ".join(SCRIPTS),  # scripts to train
    encoder: str = "resnet18",  # encoder of train_5_b.py
    encoder_weights: str = "",  # file or folder with its ImageNet weights, instead of a download
    data_root: Path = Path("data"),  # folder that download.py filled
    out: Path = Path("runs/results"),  # folder for the results
):
    """Train the missing runs, keep the results, print the table of the data set."""
    if dataset not in SETTINGS:
        raise UserError(f"the lesson has no --dataset {dataset}; choose one of {', '.join(SETTINGS)}")
    jobs, commands = {}, {}
    for seed in seeds.split():
        for script in scripts.split():
            flags = f"--dataset {dataset} {SETTINGS[dataset]} {MORE.get(script, '')}".split()
            flags += ["--encoder", encoder] if script == "train_5_b" else []
            own = ["--encoder-weights", encoder_weights] if script == "train_5_b" and encoder_weights else []
            name = f"lesson-{dataset}-{script}-s{seed}"
            commands[name] = (script, " ".join(["python", f"{script}.py", *flags]))
            jobs[name] = [f"{script}.py", *flags, *own, "--data-root", str(data_root), "--seed", seed]
    at_once, known = 1 if torch.cuda.is_available() else os.cpu_count(), load_results(RESULTS)
    ours = [mean(known[dataset, script], "minutes") for script, _ in commands.values() if (dataset, script) in known]
    print(f"{len(jobs)} runs on {dataset}, {at_once} at a time; this took us {duration(60 * sum(ours) / at_once)}")
    for name, folder in train_all(jobs, "lesson").items():
        script, command = commands[name]
        keep_run(folder, command, out / dataset / f"{script}.json")
    print("\n" + lesson_table(load_results(out), [dataset], scripts.split()))


if __name__ == "__main__":
    cli(main)
