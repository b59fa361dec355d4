"""Ablation of train_best.py: how does the score change when one part is left out?

Run       python benchmarks/leave_out.py --dataset path/to/folder --flags="--image-size 160 --epochs 20"
          python benchmarks/leave_out.py --dataset drinks --changes "as_it_is adamw" --seeds "0 1"

Each training runs a copy of the script with one change. On a CPU, one process per core runs with one thread; on a GPU,
one process runs at a time. With the default --fold, a third of the images of a folder is held out for scoring, or a
third of a data set's training images: its test set stays unseen. Finished trainings are not run again. Their records
and pictures are kept, their weights are deleted.
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

# Text in the script -> its replacement. The first entry changes nothing.
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
    "no_crops": {"augment = [crop, ": "augment = ["},
    "larger_crops": {"crop_scale: float = 0.8": "crop_scale: float = 1"},
    "best_epoch": {', keep="last"': ""},
}


def main(
    dataset: str = "drinks",  # voc2007, voc2012, pets, ade20k, drinks, shapes, or your own folder
    flags: str = "--image-size 120x160",  # flags for every training; write = before the quotes
    changes: str = " ".join(CHANGES),  # changes to try
    seeds: str = "0 1 2",  # seeds for each change
    fold: str = "1/3",  # images to score on: the first third; kitchen means images/kitchen/
    classes: str = "",  # average IoU only over these classes: "background,cat,dog"
    own: str = "",  # flags with paths of this machine: ="--data-root FOLDER"
    write: bool = False,  # save the results in results/
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
        Path(f"best_{name}.pt").unlink(missing_ok=True)  # tools.predict would use it as the newest model
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
    """Return the script's text with one change.

    Raises:
        UserError: the change is unknown, or does not fit the present script.
    """
    if change not in CHANGES:
        raise UserError(f"--changes: {change} is unknown; choose from {', '.join(CHANGES)}")
    for old, new in CHANGES[change].items():
        if text.count(old) != 1:
            raise UserError(
                f"{change} replaces {old!r}, but train_best.py has it {text.count(old)} times; edit CHANGES"
            )
        text = text.replace(old, new)
    return text


if __name__ == "__main__":
    cli(main)
