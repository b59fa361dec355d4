"""Pictures: the curves of a run, and predictions beside the truth."""

import random
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps, rcParams
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import nn

from common.datasets.segmentation_set import SegmentationSet
from common.inference import predict
from common.labels import VOID, VOID_COLOR, colorize
from common.loader import Loader
from common.metrics import MIOU, ConfusionMatrix
from common.run import Run
from common.system.files import atomic

rcParams["text.parse_math"] = False  # names of runs, images and classes may hold two $, and are no formulas

TRAIN, VAL, BEST, STAGE = "#1f77b4", "#d95f02", "#555555", "#7b3294"


def save(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` atomically, as PNG."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight")


def plot_curves(history: list[dict], best: dict, path: Path, title: str) -> None:
    """Draw loss, mIoU, pixel accuracy and learning rate by epoch; mark the row `best`, and where stages begin."""
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    figure.suptitle(title)
    panels = {"loss": "loss (mean over pixels)", "miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
    axes = figure.subplots(2, 2).flatten()
    style = {"marker": "o" if len(epochs) < 30 else None, "markersize": 3}
    for axis, (key, label) in zip(axes, panels.items(), strict=False):
        axis.plot(epochs, [row[f"train_{key}"] for row in history], color=TRAIN, label="train", **style)
        axis.plot(epochs, [row[f"val_{key}"] for row in history], color=VAL, label="validation", **style)
        axis.set_ylabel(label)
    axes[3].plot(epochs, [row["lr"] for row in history], color=TRAIN, **style)
    axes[3].set_ylabel("learning rate at the epoch's start")
    axes[3].set_ylim(bottom=0)
    first = {row["stage"]: row["epoch"] for row in reversed(history)}
    for axis in axes:
        for stage in range(2, max(first) + 1):
            label = f"stage {stage} begins"
            axis.axvline(first[stage] - 0.5, color=STAGE, linestyle=":", linewidth=1.5, label=label)
        axis.axvline(best["epoch"], color=BEST, linestyle="--", linewidth=1, label=f"best epoch ({best['epoch']})")
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
    axes[1].plot(best["epoch"], best["val_miou"], "*", color=VAL, markersize=11)
    axes[0].legend()
    save(figure, path)


def plot_comparison(
    results: dict[str, dict], histories: dict[str, list[dict]], rates: dict[str, float], path: Path, title: str
) -> None:
    """Draw the curves of several runs over each other, training dotted, and their test mIoU over their speed.

    Args:
        results: what `score` returned, by the name of the run.
        histories: rows of history.csv, by the name of the run.
        rates: images/s in training, by the name of the run.
    """
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 2).flatten()
    colors = colormaps["tab20" if len(results) > 10 else "tab10"].colors
    panels = {"loss": "loss", "pixel_accuracy": "pixel accuracy", "miou": "mIoU"}
    for (name, result), color in zip(results.items(), colors, strict=False):
        epochs = [int(row["epoch"]) for row in histories[name]]
        for axis, key in zip(axes, panels, strict=False):
            axis.plot(epochs, [float(row[f"train_{key}"]) for row in histories[name]], ":", color=color, linewidth=1)
            axis.plot(epochs, [float(row[f"val_{key}"]) for row in histories[name]], color=color, label=name)
        axes[3].plot(rates[name], result["scores"][MIOU], "o", color=color, markersize=9)
    for axis, label in zip(axes, panels.values(), strict=False):
        axis.set(xlabel="epoch", ylabel=f"{label} (validation; dotted: training)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
    axes[3].set(xlabel="images/s in training", ylabel="mIoU (test)")
    axes[3].margins(0.15)
    axes[3].grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    save(figure, path)


def draw(data: SegmentationSet, seed: int, count: int = 5) -> list[int]:
    """Return the indices of `count` images of `data`, drawn at random, in order."""
    return sorted(random.Random(seed).sample(range(len(data)), min(count, len(data))))


def side_by_side(
    models: dict[str, tuple[nn.Module, tuple[int, int]]],
    samples: list[tuple[str, Image.Image, np.ndarray | None]],
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    run: Run,
    title: str = "",
) -> Figure:
    """Return a figure of each sample's image, truth and predictions, side by side, with a legend.

    Args:
        models: by the title of their column, each with the size (height, width) at which it sees an image.
        samples: name, RGB image, and mask (H, W) uint8 or None where the truth is not known.
        classes, palette: names and colours of what the models predict.
        run: says where to compute.
    """
    aspect = max((image.height / image.width for _, image, _ in samples), default=1)
    figure, rows = grid_of_pictures(len(samples), ["image", "truth", *models], title, aspect)
    values = set()
    for axes, (name, image, mask) in zip(rows, samples, strict=True):
        axes[0].imshow(np.asarray(image))
        axes[0].set_ylabel(name, fontsize=8)
        if mask is None:
            axes[1].text(0.5, 0.5, "not known", ha="center", transform=axes[1].transAxes, color="#888888")
        else:
            axes[1].imshow(colorize(mask, palette))
            values |= set(np.unique(mask).tolist())
        for axis, (model, image_size) in zip(axes[2:], models.values(), strict=True):
            prediction = predict(model, image, image_size, run)
            axis.imshow(colorize(prediction, palette))
            values |= set(np.unique(prediction).tolist())
            if mask is not None:
                matrix = ConfusionMatrix(len(classes))
                matrix.update(torch.from_numpy(prediction).long()[None], torch.from_numpy(mask).long()[None])
                axis.set_xlabel(f"mIoU {matrix.mean_iou():.2f}", fontsize=8)
    legend(figure, classes, palette, values)
    return figure


def plot_predictions(
    model: nn.Module, data: SegmentationSet, run: Run, chosen: list[int], kind: str = "predictions"
) -> None:
    """Draw image, truth and prediction of the `chosen` images of `data` to plots/<run>_<kind>.png."""
    if run.rank == 0:
        save(predictions(model, data, run, chosen), run.plot(kind))


def predictions(model: nn.Module, data: SegmentationSet, run: Run, chosen: list[int] | None = None) -> Figure:
    """Return a figure of image, truth and prediction of the `chosen` images of `data`; by default some at random."""
    samples = [data.sample(i) for i in chosen or draw(data, run.seed)]
    title, column = f"{run.name}: {data.dataset} {data.split}", {"prediction": (model, data.image_size)}
    return side_by_side(column, samples, data.classes, data.palette, run, title)


def plot_batch(images: torch.Tensor, masks: torch.Tensor, data: SegmentationSet, run: Run, count: int = 6) -> None:
    """Draw the first images (B, 3, H, W) float and masks (B, H, W) of a batch of `data` to plots/<run>_batch.png."""
    images, masks = images[:count].cpu(), masks[:count].cpu()
    height, width = images.shape[-2:]
    titles = [str(number) for number in range(1, len(images) + 1)]
    figure, rows = grid_of_pictures(2, titles, f"{run.name}: a training batch of {data.dataset}", height / width)
    for image, mask, upper, lower in zip(images, masks, *rows, strict=True):
        upper.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
        lower.imshow(colorize(mask.numpy(), data.palette))
    legend(figure, data.classes, data.palette, masks.unique().tolist())
    save(figure, run.plot("batch"))


def plot_augmentation(loader: Loader, run: Run) -> None:
    """Draw an image over its mask as it is, after each augmentation alone, and after all, as the network gets it."""
    data, generator = loader.data, torch.Generator().manual_seed(run.seed)
    index = draw(data, run.seed, count=1)
    image, mask = data.images[index].float() / 255, data.masks[index].long()
    columns = {"original": (image, mask)}
    for function in loader.augment:
        name = getattr(function, "func", function).__name__.removeprefix("random_")  # functools.partial has a func
        # The first of several draws that changes something: a flip leaves every other image as it is.
        draws = [function(image, mask, generator) for _ in range(8)]
        columns[name] = next((d for d in draws if not torch.equal(d[0], image)), draws[0])
    columns["all together"] = image, mask
    for function in loader.augment:
        columns["all together"] = function(*columns["all together"], generator)

    height, width = data.image_size
    title = f"{run.name}: augmentation of {data.names[index[0]]}"
    figure, rows = grid_of_pictures(2, list(columns), title, height / width)
    for axis, (picture, _) in zip(rows[0], columns.values(), strict=True):
        axis.imshow(picture[0].permute(1, 2, 0).clamp(0, 1).numpy())
    for axis, (_, classes) in zip(rows[1], columns.values(), strict=True):
        axis.imshow(colorize(classes[0].numpy(), data.palette))
    legend(figure, data.classes, data.palette, torch.cat([c.flatten() for _, c in columns.values()]).unique().tolist())
    save(figure, run.plot("augmentation"))


def grid_of_pictures(rows: int, titles: list[str], title: str, aspect: float) -> tuple[Figure, np.ndarray]:
    """Return a figure, and its axes (rows, len(titles)) without ticks, each column with its title.

    `aspect` is height / width of the pictures that are to fill the axes.
    """
    row_height = 2.5 * max(aspect, 0.3) + 0.1  # in inches; a name stands beside each row
    figure = Figure(figsize=(2.5 * len(titles), row_height * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, len(titles), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, text in zip(axes[0], titles, strict=True):
        # A run's name may be long; it is broken at its hyphens.
        axis.set_title(textwrap.fill(text, 34), fontsize=10 if len(text) <= 28 else 8)
    figure.suptitle(title, fontsize=10)
    return figure, axes


def legend(figure: Figure, classes: Sequence[str], palette: Sequence[tuple], values: Iterable[int]) -> None:
    """Put a legend below `figure` that names the classes, or void, in `values`."""
    names, colors = {**dict(enumerate(classes)), VOID: "void"}, {**dict(enumerate(palette)), VOID: VOID_COLOR}
    patches = [
        Patch(facecolor=np.array(colors[value]) / 255, edgecolor="#888888", linewidth=0.5, label=names[value])
        for value in sorted(values)
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(patches)), fontsize=8, frameon=False)
