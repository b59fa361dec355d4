"""Report a test: print the scores, write test.json and classes.csv, draw the pictures."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from common.datasets.segmentation_set import SegmentationSet
from common.loader import Loader
from common.metrics import MIOU, PIXEL_ACCURACY, ConfusionMatrix
from common.models import count_parameters
from common.reporting.diagnosis import hints
from common.run import Run
from common.system.files import write_json, write_text


def report_test(model: nn.Module, loader: Loader, loss: float, matrix: ConfusionMatrix, run: Run) -> dict:
    """Print the scores in `matrix`, write test.json and classes.csv to the run's folder, and draw the pictures.

    Returns:
        The contents of test.json, see `contents`.
    """
    data, result = loader.data, contents(model, loader, loss, matrix, run)
    if run.rank > 0:
        return result
    from common.reporting import confusion, plotting  # here, since matplotlib is slow to import

    write_json(run.folder / "test.json", result)
    write_classes(run.folder / "classes.csv", matrix, data.classes)
    plotting.save(plotting.predictions(model, [data], run), run.plot("predictions"))
    confusion.plot_confusion(matrix, data.classes, run.plot("confusion"), f"{run.name}: {data.dataset} test")
    run.print(f"test: {summary(result)}")
    run.print(f"IoU: {', '.join(f'{name} {iou:.2f}' for name, iou in result['iou'].items() if iou is not None)}")
    for hint in hints(run.history, matrix, data.classes) if run.history else ():
        run.print(f"hint: {hint}")
    took = f", trained in {duration(sum(row['seconds'] for row in run.history))}" if run.history else ""
    run.print(f"pictures: {run.plot().with_suffix('')}*.png (curves, predictions, confusion matrix)")
    run.print(f"other scores: {run.folder / 'test.json'} and classes.csv")
    run.print(f"model: {run.best_checkpoint}, {result['parameters'] / 1e6:.2f} M parameters{took}")
    return result


def report_tta(model: nn.Module, loader: Loader, loss: float, matrix: ConfusionMatrix, run: Run) -> None:
    """Print the scores with test-time augmentation in a line, and write them to test_tta.json."""
    result = contents(model, loader, loss, matrix, run)
    if run.rank == 0:
        write_json(run.folder / "test_tta.json", result)
    run.print(f"test with test-time augmentation: {summary(result)}")


def contents(model: nn.Module, loader: Loader, loss: float, matrix: ConfusionMatrix, run: Run) -> dict:
    """Return the contents of test.json.

    These are `ConfusionMatrix.report`, the loss, and the mean IoU of each image, by name, over the classes in it (None
    if the whole image is void).
    """
    data = loader.data
    result = {"run": run.name, "dataset": data.dataset, "images": len(data), "image_size": data.image_size}
    result |= {"parameters": count_parameters(model), "loss": loss} | matrix.report(data.classes)
    by_image = sorted(zip(loader.order(), matrix.image_scores().tolist(), strict=True))
    return result | {"image_miou": {data.names[i]: None if math.isnan(miou) else miou for i, miou in by_image}}


def summary(result: dict) -> str:
    """Return the headline scores of a test in one line."""
    scores, floor = result["scores"], result["floor"]
    between = "95 % interval {:.4f} to {:.4f}, ".format(*result["interval"]) if "interval" in result else ""
    return (
        f"mIoU {scores[MIOU]:.4f} ({between}floor {floor[MIOU]:.4f}) over {result['classes_in_target']} of "
        f"{len(result['iou'])} classes, pixel accuracy {scores[PIXEL_ACCURACY]:.4f} (floor "
        f"{floor[PIXEL_ACCURACY]:.4f}), loss {result['loss']:.3f}"
    )


def report_masks(matrix: ConfusionMatrix, names: Sequence[str], classes: Sequence[str], file: str | Path) -> dict:
    """Print every score of predicted masks beside the baseline ("floor"); write them to the JSON file `file`, if given.

    Args:
        matrix: counts of all masks.
        names: names of the masks, in the order of the matrix's images.

    Returns:
        The contents of the file: `ConfusionMatrix.report`, and the mean IoU of each mask.
    """
    result = {"masks": len(names), **matrix.report(classes)}
    by_name = zip(names, matrix.image_scores().tolist(), strict=True)
    result["image_miou"] = {name: None if math.isnan(miou) else miou for name, miou in by_name}
    title, floor = f"{len(names)} masks at their own size", f"all {classes[matrix.most_frequent()]}"
    lines = [f"{title}{'score':>25}{floor:>18}"]
    lines += [f"  {name:<45}{v:>14.4f}{result['floor'][name]:>18.4f}" for name, v in result["scores"].items()]
    if "interval" in result:
        low, high = result["interval"]
        lines.append(f"  {'95 % interval of mIoU (bootstrap over images)':<45}{low:>14.4f} to {high:.4f}")
    there = zip(result["iou"].items(), matrix.present().tolist(), strict=True)
    print("\n".join([*lines, f"  IoU: {', '.join(f'{name} {iou:.2f}' for (name, iou), present in there if present)}"]))
    if file:
        write_json(Path(file), result)
    return result


def report_unlabelled(data: SegmentationSet, run: Run) -> dict:
    """Print that the test set has no masks, and the command that predicts them; return no scores."""
    folder = Path(data.dataset, "images")
    images = folder if folder.is_dir() else data.dataset  # or the splits are folders with images/ in each
    predict = f"python -m tools.predict {images} --checkpoint {run.best_checkpoint} --split test"
    run.print(f"test: {len(data)} images without masks, not scored; `{predict}` predicts them")
    return {}


def write_classes(path: Path, matrix: ConfusionMatrix, classes: Sequence[str]) -> None:
    """Write `ConfusionMatrix.class_scores` to `path` as CSV, a row for each class; NaN becomes an empty cell."""
    scores, text = matrix.class_scores(), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *scores])
    for name, *values in zip(classes, *(score.tolist() for score in scores.values()), strict=True):
        writer.writerow([name, *("" if math.isnan(value) else round(value, 6) for value in values)])
    write_text(path, text.getvalue())


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: 42 s, 1.5 minutes, 3.2 hours."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
