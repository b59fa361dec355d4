"""Write the tables of README.md and docs/, and the Result line of each script, from the numbers in results/.

Run       python benchmarks/tables.py
"""

import re
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.cli import cli
from common.reporting.results import (
    REPOSITORY,
    against,
    deviation,
    lesson_table,
    load_results,
    mean,
    parent_of,
    say,
    table,
)
from common.system.files import write_text
from tools.lesson import SCRIPTS


def main():
    for path, text in written(load_results(), SCRIPTS).items():
        write_text(path, text)


def leave_out_table(results: dict[str, dict], classes: list[str]) -> str:
    """Return the table of benchmarks/leave_out.py. The first result is the unchanged script.

    Args:
        results: change -> result.
        classes: average IoU only over these classes, which include the most frequent one; [] means all classes.
    """

    def miou(test: dict) -> float:
        return statistics.mean(test["iou"][name] for name in classes) if classes else test["miou"]

    rows, parent = [["changed", "mIoU", "difference", "loss", "TTA", "minutes"]], None
    for change, result in results.items():
        runs = [run | {"miou": miou(run), "tta_miou": miou(run["tta"])} for run in result["runs"]]
        result = result | {"runs": runs}
        scores = [say(mean(result, key), deviation(result, key)) for key in ("miou", "loss", "tta_miou")]
        scores.insert(1, against(result, parent))
        rows.append([change.replace("_", " "), *scores, f"{mean(result, 'minutes'):.1f}"])
        parent = parent or result
    floor = parent["floor"]["pixel_accuracy"] / len(classes) if classes else parent["floor"]["miou"]
    return table([*rows, ["*majority-class baseline*", f"*{floor:.3f}*", "", "", "", ""]])


def written(results: dict, scripts: list[str]) -> dict[Path, str]:
    """Return the updated text of each file with results: tables between marks, and Result lines."""
    texts = {}
    for path in (REPOSITORY / "README.md", REPOSITORY / "docs" / "experiments.md"):
        text = path.read_text(encoding="utf-8")
        for mark, datasets in re.findall(r"(<!-- lesson(.*?) -->\n)", text):
            new = lesson_table(results, datasets.split() or ["shapes"], scripts)
            text = re.sub(rf"({mark}).*?(<!-- end -->)", rf"\1{new}\n\2", text, flags=re.DOTALL)
        for mark, dataset, classes in re.findall(r"(<!-- leave_out (\w+)(.*) -->\n)", text):
            names = sorted(
                (name for of, name in results if of == dataset and "leave_out" in name),
                key=lambda name: ("as_it_is" not in name, name),
            )
            found = {name.removeprefix("leave_out-"): results[dataset, name] for name in names}
            new = leave_out_table(found, classes.strip().split(",") if classes else [])
            text = re.sub(rf"({mark}).*?(<!-- end -->)", rf"\1{new}\n\2", text, flags=re.DOTALL)
        texts[path] = text
    for script in [*scripts, "train_fast"]:
        path = REPOSITORY / f"{script}.py"
        new, text = result_line(results, script), path.read_text(encoding="utf-8")
        texts[path] = re.sub(r"(?<=\nResult).*?(?=\nRun)", f"    {new}", text, count=1, flags=re.DOTALL)
    return texts


def result_line(results: dict, script: str) -> str:
    """Return the Result line for the docstring of a script."""
    result, parent = results["shapes", script], parent_of(script)
    seeds = len(result["runs"])
    text = f"test mIoU {say(mean(result, 'miou'), deviation(result, 'miou'))} on the generated scenes, {seeds} seeds"
    return text + (f" ({against(result, results['shapes', parent])} against {parent}.py)" if parent else "")


if __name__ == "__main__":
    cli(main)
