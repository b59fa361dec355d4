"""Train a script with every combination of some parameters, and compare the results.

    python -m tools.compare train_pets.py model=encoder_unet,pspnet encoder=mobilenet_v1,mobilenet_v2
    python -m tools.compare train_ade20k.py optimizer=adam,adamw,rmsprop --flags="--dataset shapes --no-pretrained"

The table is printed and written to runs/compare-<script>.csv. The curves are drawn to plots/compare-<script>.png.
Finished trainings are not run again.
"""

import csv
import itertools
import statistics
from pathlib import Path

from common.cli import cli
from common.history import read_history
from common.metrics import MIOU, PIXEL_ACCURACY
from common.reporting import plotting
from common.reporting.results import table
from common.system.errors import UserError
from common.system.files import atomic, read_json
from tools.trainings import train_all


def main(
    script: Path,  # script to train, such as train_pets.py
    vary: list[str],  # parameters and their values: model=fcn8s,pspnet
    flags: str = "",  # flags for every training; write = before the quotes
):
    """Train every combination, print the table, draw the curves."""
    choices = {}
    for text in vary:
        key, equals, values = text.partition("=")
        if not equals or not all(values.split(",")):
            raise UserError(f"{text!r} gives no values; write a parameter and its values as in model=fcn8s,pspnet")
        choices[key] = values.split(",")
    jobs = {}
    for values in itertools.product(*choices.values()):
        own = [f"--{key.replace('_', '-')}={value}" for key, value in zip(choices, values, strict=True)]
        jobs[f"compare-{script.stem}-{'-'.join(values)}"] = [script, *flags.split(), *own]
    # A script may start a second run, such as fine-tuning.
    folders = [part for folder in train_all(jobs, "comparing").values() for part in parts_of(folder)]
    rows, histories = [], {folder.name: read_history(folder) for folder in folders}
    for folder in folders:
        test, history = read_json(folder / "test.json"), histories[folder.name]
        rows.append(
            {
                "run": folder.name.removeprefix(f"compare-{script.stem}-"),
                "parameters": f"{test['parameters'] / 1e6:.2f} M",
                MIOU: f"{test['scores'][MIOU]:.3f}",
                "floor": f"{test['floor'][MIOU]:.3f}",
                PIXEL_ACCURACY: f"{test['scores'][PIXEL_ACCURACY]:.3f}",
                "loss": f"{test['loss']:.3f}",
                "images/s": f"{training_speed(history):.1f}",
                "minutes": f"{sum(row['seconds'] for row in history) / 60:.1f}",
            }
        )
    numbers, picture = Path("runs", f"compare-{script.stem}.csv"), Path("plots", f"compare-{script.stem}.png")
    with atomic(numbers) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    scores = {name: (training_speed(history), read_json(Path("runs", name, "test.json"))["scores"][MIOU])
              for name, history in histories.items()}  # fmt: skip
    plotting.plot_comparison(histories, scores, picture, f"{script.name}: {', '.join(vary)}")
    print(f"\n{table([list(rows[0]), *(row.values() for row in rows)])}\n\nsee {picture} and {numbers}")
    return rows


def parts_of(folder: Path) -> list[Path]:
    """Return the folder of a run and the folders of its follow-up runs."""
    found = [path.parent for path in sorted(folder.parent.glob(f"{folder.name}-*/test.json"))]
    parts = {path: read_json(path / "config.json")["experiment"].get("part") for path in found}
    return [folder, *(path for path in found if path.name == f"{folder.name}-{parts[path]}")]


def training_speed(history: list[dict]) -> float:
    """Return the training speed in images/s, without validation: the median over the epochs."""
    return statistics.median(row["train_images_per_second"] for row in history if row["epoch"])


if __name__ == "__main__":
    cli(main)
