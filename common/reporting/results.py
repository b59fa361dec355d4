"""Results of trainings, kept as small JSON files, and their table."""

import ast
import math
import platform
import re
import statistics
import subprocess
from pathlib import Path

from common.history import kept_row, last_epoch, read_history
from common.metrics import MIOU, PIXEL_ACCURACY
from common.system.files import read_json, write_json

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "results"
SEEDS = 3  # of each step of the lesson


def keep_run(folder: Path, command: str, result: Path) -> None:
    """Add the finished run in `folder` to the file `result`; one of the same seed takes the place of an earlier one.

    Args:
        command: how the run is started, without its seed.
    """
    settings, run = {"command": command} | about(folder), record(folder)
    before = read_json(result)
    runs = [other for other in before.get("runs", []) if other["seed"] != run["seed"] and before["command"] == command]
    write_json(result, settings | {"runs": sorted([*runs, run], key=lambda other: other["seed"])})


def about(folder: Path) -> dict:
    """Return what the finished run in `folder` has in common with others of the same settings."""
    test, config = read_json(folder / "test.json"), read_json(folder / "config.json")
    return {
        "script": config["experiment"]["script"],
        "dataset": test["dataset"],
        "images": {split: len(names) for split, names in read_json(folder / "splits.json").items()},
        "parameters": test["parameters"],
        "floor": {"miou": test["floor"][MIOU], "pixel_accuracy": test["floor"][PIXEL_ACCURACY]},
    }


def record(folder: Path) -> dict:
    """Return what is kept of the finished run in `folder`: its scores, and what they depend on."""
    test, config, history = read_json(folder / "test.json"), read_json(folder / "config.json"), read_history(folder)
    run = {
        "seed": config["experiment"]["seed"],
        "miou": test["scores"][MIOU],
        "pixel_accuracy": test["scores"][PIXEL_ACCURACY],
        "per_image_miou": test["scores"]["per-image mIoU over classes present"],
        "per_image_class_accuracy": test["scores"]["per-image class accuracy over classes present"],
        "loss": test["loss"],
        "val_miou": kept_row(history)["val_miou"],
        "epochs": last_epoch(history),
        "minutes": round(sum(row["seconds"] for row in history) / 60, 2),
        "iou": test["iou"],
        "precision": config["experiment"]["precision"],
        "versions": config["versions"],
        "commit": commit(),
        "machine": machine(),
    }
    if tta := read_json(folder / "test_tta.json"):
        scores = {"miou": tta["scores"][MIOU], "pixel_accuracy": tta["scores"][PIXEL_ACCURACY]}
        run["tta"] = scores | {"loss": tta["loss"], "iou": tta["iou"]}
    return run


def commit() -> str:
    """Return git's name of what is checked out, with a + if files are edited; "" outside git."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def machine() -> str:
    """Return the name of this machine's processor."""
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def load_results(folder: Path = RESULTS) -> dict[tuple[str, str], dict]:
    """Return what every file in `folder` holds, by data set and name of the file."""
    return {(path.parent.name, path.stem): read_json(path) for path in sorted(folder.glob("*/*.json"))}


def mean(result: dict, key: str) -> float:
    """Return the mean of a score over the runs of a result."""
    return statistics.mean(run[key] for run in result["runs"])


def deviation(result: dict, key: str) -> float:
    """Return the standard deviation of a score over the runs of a result; NaN of a single one."""
    return statistics.stdev(run[key] for run in result["runs"]) if len(result["runs"]) > 1 else math.nan


def say(value: float, spread: float, sign: str = "") -> str:
    """Return a score with its uncertainty: 0.612 ± 0.004."""
    return f"{value:{sign}.3f}" + ("" if math.isnan(spread) else f" ± {spread:.3f}")


def against(result: dict, parent: dict | None, key: str = "miou") -> str:
    """Return the difference from the parent, with the standard error of the difference of the means."""
    if not parent:
        return ""
    errors = (deviation(r, key) ** 2 / len(r["runs"]) for r in (result, parent))
    return say(mean(result, key) - mean(parent, key), math.sqrt(sum(errors)), "+")


def question(script: str) -> str:
    """Return the question that a script of this repository asks: the first line of its docstring."""
    text = docstring(script)
    return text.splitlines()[0] if text else ""


def docstring(script: str) -> str:
    """Return the docstring of a script at the top level; "" if it is not there, or has none."""
    path = REPOSITORY / f"{script}.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") if path.is_file() else ""


def parent_of(script: str) -> str:
    """Return the script that a script's docstring names after "Change"; "" if none."""
    return next(iter(re.findall(r"^Change +(\w+)\.py,", docstring(script), re.MULTILINE)), "")


def table(rows: list[list[str]]) -> str:
    """Return rows of text, the first of which is the head, as Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def lesson_table(results: dict, dataset: str, scripts: list[str]) -> str:
    """Return the table of the `scripts` on a data set: scores on the test images, and against those of the parent."""
    rows = [["script", "question", "parameters", "mIoU", "against its parent", "pixel accuracy", "loss", "minutes"]]
    found = {script: results[dataset, script] for script in scripts if (dataset, script) in results}
    if not found:
        return "nothing is measured yet"
    flags = {script: re.findall(r"--\S+ \S+", result["command"]) for script, result in found.items()}
    shared = [flag for flag in next(iter(flags.values())) if all(flag in others for others in flags.values())]
    for script, result in found.items():
        seeds = len(result["runs"])
        name = f"`{' '.join([f'{script}.py', *(flag for flag in flags[script] if flag not in shared)])}`"
        name += f" ({seeds} seed{'s' * (seeds > 1)})" * (seeds != SEEDS)
        parameters = f"{result['parameters'] / 1e6:.2f} M"
        scores = [say(mean(result, key), deviation(result, key)) for key in ("miou", "pixel_accuracy", "loss")]
        scores.insert(1, against(result, found.get(parent_of(script))))
        rows.append([name, question(script), parameters, *scores, f"{mean(result, 'minutes'):.1f}"])
    floor = next(iter(found.values()))["floor"]
    last = ["", f"*{floor['miou']:.3f}*", "", f"*{floor['pixel_accuracy']:.3f}*", "", ""]
    rows.append(["*floor*", "*the most frequent class everywhere*", *last])
    return f"Each with `{' '.join(shared)}`:\n\n{table(rows)}"
