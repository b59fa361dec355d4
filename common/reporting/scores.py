"""What the test says of a trained model: a table on the screen, test.json, classes.csv, and pictures."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from common.datasets.segmentation_set import SegmentationSet
from common.history import read_history
from common.loader import Loader
from common.metrics import MIOU, PIXEL_ACCURACY, ConfusionMatrix
from common.models import count_parameters
from common.reporting.diagnosis import hints
from common.run import Run
from common.system.files import write_json, write_text


def report_test(model: nn.Module, loader: Loader, loss: float, matrix: ConfusionMatrix, run: Run, stage: str) -> dict:
    """Print the scores in `matrix`, write test.json and classes.csv to runs/<run>/, draw it and some predictions.

    Of a `stage`, which is not the headline (its name, or ""), only print a line and write test_<stage>.json.

    Returns:
        What test.json holds: `ConfusionMatrix.report`, the loss, and by name the mean IoU of each image over the
        classes in it (None if all of it is void).
    """
    data = loader.data
    result = {"run": run.name, "dataset": data.dataset, "images": len(data), "image_size": data.image_size}
    result |= {"parameters": count_parameters(model), "loss": loss} | matrix.report(data.classes)
    by_image = sorted(zip(loader.order(), matrix.image_scores().tolist(), strict=True))
    result["image_miou"] = {data.names[i]: None if math.isnan(miou) else miou for i, miou in by_image}
    scores, floor = result["scores"], result["floor"]
    between = "95 % interval {:.4f} to {:.4f}, ".format(*result["interval"]) if "interval" in result else ""
    summary = (
        f"test: mIoU {scores[MIOU]:.4f} ({between}floor {floor[MIOU]:.4f}) over {result['classes_in_target']} of "
        f"{data.num_classes} classes, pixel accuracy {scores[PIXEL_ACCURACY]:.4f} (floor {floor[PIXEL_ACCURACY]:.4f}), "
        f"loss {loss:.3f}"
    )
    if run.rank == 0:
        write_json(run.folder / f"test{stage and f'_{stage}'}.json", result)
    if stage:
        run.print(f"{stage.replace('_', ' ')}, {summary}")
        return result
    if run.rank == 0:
        from common.reporting import confusion, plotting  # not before: matplotlib is slow to import

        write_classes(run.folder / "classes.csv", matrix, data.classes)
        plotting.save(plotting.predictions(model, [data], run), run.plot("predictions"))
        confusion.plot_confusion(matrix, data.classes, run.plot("confusion"), f"{run.name}: {data.dataset} test")
    height, width = data.image_size
    run.print("\n" + matrix.table(f"{data.dataset} test, {len(data)} images at {height}x{width}", data.classes, result))
    run.print(summary)
    history = read_history(run.folder) if (run.folder / "history.csv").exists() else []
    for hint in hints(history, matrix, data.classes) if history else ():
        run.print(f"hint: {hint}")
    took = f", trained in {duration(sum(row['seconds'] for row in history))}" if history else ""
    run.print(f"see {run.plot()} and {run.plot('predictions')}")
    run.print(f"see {run.plot('confusion')} and {run.folder / 'classes.csv'}")
    run.print(f"the model is {run.best_checkpoint}, {result['parameters'] / 1e6:.2f} M parameters{took}")
    return result


def report_unlabelled(data: SegmentationSet, run: Run, stage: str) -> dict:
    """Say, after the last stage, that the test set has no masks, and what predicts them; return no scores."""
    if not stage:
        folder = Path(data.dataset, "images")
        images = folder if folder.is_dir() else data.dataset  # or the splits are folders with images/ in each
        predict = f"python predict.py {images} --checkpoint {run.best_checkpoint} --split test"
        run.print(f"test: {len(data)} images without masks, not scored; `{predict}` predicts them")
    return {}


def write_classes(path: Path, matrix: ConfusionMatrix, classes: Sequence[str]) -> None:
    """Write `ConfusionMatrix.class_scores` to `path` as CSV, a row for each class; what is NaN stays empty."""
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
