"""Report of overfit.py: scores of each model on its training image and on another image, curves, predictions."""

from matplotlib.figure import Figure
from torch import nn

from common.datasets.segmentation_set import SegmentationSet
from common.history import write_history
from common.metrics import MIOU, PIXEL_ACCURACY, ConfusionMatrix
from common.reporting.plotting import TRAIN, plot_by_epoch, save, side_by_side
from common.run import Run
from common.system.files import write_json


def report_overfit(
    history: list[dict],
    models: dict[str, nn.Module],
    results: dict[str, list[tuple[float, ConfusionMatrix]]],
    images: list[SegmentationSet],
    run: Run,
) -> dict:
    """Print scores, draw curves and predictions, write history.csv (one row per step) and scores.json to runs/<run>/.

    Args:
        history: rows of history.csv, measured in training mode.
        models: models by column title in the picture.
        results: column title -> results of `evaluate`, one for each of `images`.
        images: data sets with one image each.

    Returns:
        The content of scores.json: model title -> split of the image -> scores.
    """
    scores = {title: {} for title in models}
    for number, data in enumerate(images):
        for title, found in results.items():
            loss, matrix = found[number]
            values = {MIOU: matrix.mean_iou(), PIXEL_ACCURACY: matrix.pixel_accuracy(), "loss": loss}
            scores[title][data.split] = values
            numbers = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            run.print(f"{data.split} image {data.names[0]}, {title}: {numbers}")
    if run.rank > 0:
        return scores
    write_history(run.folder, history)
    write_json(run.folder / "scores.json", scores)
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    figure.suptitle(f"{run.name}: training on one image (in training mode)")
    for axes, key, label in zip(figure.subplots(1, 2), ("loss", "miou"), ("loss", "mIoU"), strict=True):
        plot_by_epoch(axes, history, key, by="step", color=TRAIN)
        axes.set_ylabel(label)
    save(figure, run.plot())
    columns = {title: (model, images[0].image_size) for title, model in models.items()}
    samples, title = [data.sample(0) for data in images], f"{run.name}: the training image and another one"
    grid = side_by_side(columns, samples, images[0].classes, images[0].palette, run, title)
    save(grid, run.plot("predictions"))
    run.print(f"see {run.plot()}, {run.plot('predictions')} and {run.folder / 'history.csv'}")
    return scores
