"""What does each part of train_best.py bring? It is trained without it, and scored on images kept apart for this.

Run       python benchmarks/leave_out.py --dataset path/to/folder --flags="--image-size 160 --epochs 20"
          python benchmarks/leave_out.py --dataset drinks --changes "as_it_is adamw" --seeds "0 1"

Every training is of a copy of the script with one thing changed, in a process of its own with one thread, as many at a
time as there are cores; on a GPU one at a time. A third of the images of a folder is kept apart to be scored, or of a
data set's training images: its own test images are not looked at. What is finished is not trained again; of a
training, its records and pictures are kept, its weights are not.
"""

import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.tables import leave_out_table
from common.cli import cli
from common.reporting.results import REPOSITORY, RESULTS, about, keep_run, record
from common.run import short_name
from common.system.errors import UserError
from common.system.files import write_text
from tools.trainings import train_all

# What takes the place of what in the script. The first changes nothing.
CHANGES = {
    "as_it_is": {},
    "adamw": {
        "optimizer = Muon(": "optimizer = torch.optim.AdamW(",
        "lr: float = 1e-2": "lr: float = 1e-3",
        "encoder_lr: float = 5e-4": "encoder_lr: float = 2e-4",
    },
    "no_skips": {"import ASPPUNet": "import DeepLabV3Plus", "model = ASPPUNet": "model = DeepLabV3Plus"},
    "no_pooling": {
        "import ASPPUNet": "import EncoderUNet",
        "model = ASPPUNet": 'options.pop("dilations")\n    model = EncoderUNet',
    },
    "no_colours": {", random_color]": "]"},
    "no_crops": {"augment = [crop, ": "augment = [", "stored_scale: float = 1.25": "stored_scale: float = 1"},
    "best_epoch": {', keep="last"': ""},
}


def main(
    dataset: str = "drinks",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    flags: str = "--image-size 120x160",  # of every training, with = before the quotes
    changes: str = " ".join(CHANGES),  # which of them
    seeds: str = "0 1 2",  # a training of each with each of them
    fold: str = "1/3",  # which images are scored; kitchen: those in images/kitchen/
    classes: str = "",  # mean IoU over these alone: "background,cat,dog"
    own: str = "",  # flags that say where things are on this machine: ="--data-root FOLDER"
    write: bool = False,  # keep what came out in results/
):
    text, names = (REPOSITORY / "train_best.py").read_text(encoding="utf-8"), list(filter(None, classes.split(",")))
    scripts = {change: Path("runs", f"train_best-{change}.py").resolve() for change in changes.split()}
    for change, script in scripts.items():
        write_text(script, changed(text, change))
    jobs, runs = {}, {}
    for seed in seeds.split():
        for change, script in scripts.items():
            name = f"{short_name(dataset)}-{zlib.crc32((flags + fold).encode()):08x}-{change}-s{seed}"
            settings = ["--dataset", dataset, "--fold", fold, "--seed", seed, *flags.split(), *own.split()]
            jobs[name] = (change, [script, *settings])
    folders = train_all({name: job for name, (_, job) in jobs.items()}, "trainings")
    for name, folder in folders.items():
        change, result = jobs[name][0], record(folder)
        if unknown := set(names) - result["iou"].keys():
            raise UserError(f"--classes {','.join(unknown)}: {dataset} has {','.join(result['iou'])}")
        Path(f"best_{name}.pt").unlink(missing_ok=True)  # tools.predict would take them for the user's newest
        (folder / "last.pt").unlink(missing_ok=True)
        runs.setdefault(change, []).append(result)
        if write:
            part = f"--dataset {dataset} --fold {fold}"
            command = f'python benchmarks/leave_out.py {part} --flags="{flags}" --changes {change}'
            keep_run(folder, command, RESULTS / short_name(dataset) / f"leave_out-{change}.json")
    floor = about(folder)["floor"]
    results = {change: {"runs": those, "floor": floor} for change, those in runs.items()}
    print("\n" + leave_out_table(results, names))


def changed(text: str, change: str) -> str:
    """Return the script's text with one thing changed.

    Raises:
        UserError: a change that is none, or that does not fit the script as it is by now.
    """
    if change not in CHANGES:
        raise UserError(f"--changes: {change} is none of {', '.join(CHANGES)}")
    for old, new in CHANGES[change].items():
        if text.count(old) != 1:
            raise UserError(
                f"{change} replaces {old!r}, which is {text.count(old)} times in train_best.py; edit CHANGES"
            )
        text = text.replace(old, new)
    return text


if __name__ == "__main__":
    cli(main)
