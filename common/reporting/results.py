"""Keep the results of trainings as small JSON files, and make tables of them."""

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
SEEDS = 3  # runs for each step of the lesson
SETS = {"shapes": "the generated scenes", "voc2012": "part of VOC 2012", "voc2007": "part of VOC 2007"}


def keep_run(folder: Path, command: str, result: Path) -> None:
    """Add the finished run in `folder` to the file `result`; it replaces an earlier run with the same seed.

    Args:
        command: the command of the run without its seed; a new command replaces all earlier runs.
    """
    settings, run = {"command": command} | about(folder), record(folder)
    before = read_json(result)
    runs = [other for other in before.get("runs", []) if other["seed"] != run["seed"] and before["command"] == command]
    write_json(result, settings | {"runs": sorted([*runs, run], key=lambda other: other["seed"])})


def about(folder: Path) -> dict:
    """Return facts about the finished run in `folder` that do not depend on its seed."""
    test, config = read_json(folder / "test.json"), read_json(folder / "config.json")
    return {
        "script": config["experiment"]["script"],
        "dataset": test["dataset"],
        "images": {split: len(names) for split, names in read_json(folder / "splits.json").items()},
        "parameters": test["parameters"],
        "floor": {"miou": test["floor"][MIOU], "pixel_accuracy": test["floor"][PIXEL_ACCURACY]},
    }


def record(folder: Path) -> dict:
    """Return scores, seed, versions and machine of the finished run in `folder`."""
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
    """Return git's name of the current commit, with a + if files are edited; "" outside git."""
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
    """Return the contents of all files in `folder`, by data set and file name."""
    return {(path.parent.name, path.stem): read_json(path) for path in sorted(folder.glob("*/*.json"))}


def mean(result: dict, key: str) -> float:
    """Return the mean of a score over the runs of a result."""
    return statistics.mean(run[key] for run in result["runs"])


def deviation(result: dict, key: str) -> float:
    """Return the standard deviation of a score over the runs of a result; NaN for a single run."""
    return statistics.stdev(run[key] for run in result["runs"]) if len(result["runs"]) > 1 else math.nan


def say(value: float, spread: float, sign: str = "") -> str:
    """Return a score with its uncertainty: 0.612 ± 0.004."""
    return f"{value:{sign}.3f}" + ("" if math.isnan(spread) else f" ± {spread:.3f}")


def against(result: dict, parent: dict | None, key: str = "miou") -> str:
    """Return the difference of the means from the parent, with its standard error."""
    if not parent:
        return ""
    errors = (deviation(r, key) ** 2 / len(r["runs"]) for r in (result, parent))
    return say(mean(result, key) - mean(parent, key), math.sqrt(sum(errors)), "+")


def question(script: str) -> str:
    """Return the question of a script in this repository: the first line of its docstring."""
    text = docstring(script)
    return text.splitlines()[0] if text else ""


def docstring(script: str) -> str:
    """Return the docstring of a top-level script; "" if there is none."""
    path = REPOSITORY / f"{script}.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") if path.is_file() else ""


def parent_of(script: str) -> str:
    """Return the script that a script's docstring names after "Change"; "" if none."""
    return next(iter(re.findall(r"^Change +(\w+)\.py,", docstring(script), re.MULTILINE)), "")


def table(rows: list[list[str]]) -> str:
    """Return rows of text as a Markdown table; the first row is the head."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def lesson_table(results: dict, datasets: list[str], scripts: list[str]) -> str:
    """Return a table with a row for each script: its mIoU on each data set, and the difference from its parent.

    With one data set, the first column also has the question of the script.
    """
    rows = [["script"]]
    for dataset in datasets:
        rows[0] += [f"mIoU, {SETS[dataset]}", "difference"]
    for script in scripts:
        row = [f"`{script}.py`" + f": {question(script)}" * (len(datasets) == 1)]
        for dataset in datasets:
            result, parent = results.get((dataset, script)), results.get((dataset, parent_of(script)))
            row += [miou(result), against(result, parent)] if result else ["", ""]
        rows.append(row)
    rows.append(["*majority-class baseline*"])
    for dataset in datasets:
        floor = next(results[dataset, script]["floor"]["miou"] for script in scripts if (dataset, script) in results)
        rows[-1] += [f"*{floor:.3f}*", ""]
    return table(rows)


def miou(result: dict) -> str:
    """Return the mIoU of a result, with the number of seeds if it is not the usual one."""
    seeds = len(result["runs"])
    text = say(mean(result, "miou"), deviation(result, "miou"))
    return text + f" ({seeds} seed{'s' * (seeds > 1)})" * (seeds != SEEDS)
