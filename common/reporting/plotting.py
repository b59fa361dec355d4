"""Draw the curves of runs, and predictions beside the true masks."""

import random
import re
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import nn
from torch.nn import functional as F

from common.datasets.segmentation_set import SegmentationSet
from common.inference import predict
from common.labels import VOID, VOID_COLOR, colorize
from common.loader import Loader
from common.metrics import ConfusionMatrix
from common.run import Run
from common.system.files import atomic

rcParams["text.parse_math"] = False  # two $ in the name of a run, image or class are not a formula

TRAIN, VAL, KEPT = "#1f77b4", "#d95f02", "#555555"
LINES = "-", (0, (6, 4)), (0, (6, 3, 1, 3))  # line styles that take turns in a comparison


def save(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` atomically, as PNG."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight")


def plot_by_epoch(axes: Axes, history: list[dict], key: str, by: str = "epoch", **style) -> None:
    """Plot the column `key` of the rows of history.csv over the epochs."""
    marker = "o" if len(history) < 30 else None  # one epoch alone gives no visible line
    axes.plot(
        [row[by] for row in history],
        [row.get(key, np.nan) for row in history],
        **{"marker": marker, "markersize": 3, **style},
    )
    axes.set_xlabel(by)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def plot_curves(history: list[dict], kept: dict, path: Path, title: str) -> None:
    """Draw loss, mIoU, pixel accuracy and learning rate by epoch; mark the row `kept`."""
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(2, 2).flatten()
    labels = {"loss": "loss", "miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
    for axes, (key, label) in zip(panels, labels.items(), strict=False):
        plot_by_epoch(axes, history, f"train_{key}", color=TRAIN, label="train")
        plot_by_epoch(axes, history, f"val_{key}", color=VAL, label="validation")
        axes.set_ylabel(label)
    rates = sorted({key for row in history for key in row if key.startswith("lr_")})  # of named parameter groups
    for number, key in enumerate(rates or ["lr"]):
        plot_by_epoch(panels[3], history, key, color=f"C{number}", label=key.removeprefix("lr_"))
    panels[3].set_ylabel("learning rate at the epoch's start")
    panels[3].set_ylim(bottom=0)
    if rates:
        panels[3].legend(handles=panels[3].get_lines())
    for axes in panels:
        axes.axvline(kept["epoch"], color=KEPT, ls="--", lw=1, label=f"epoch {kept['epoch']} is kept")
    panels[1].plot(kept["epoch"], kept["val_miou"], "*", color=VAL, markersize=11)
    panels[0].legend()
    save(figure, path)


def plot_comparison(
    histories: dict[str, list[dict]], scores: dict[str, tuple[float, float]], path: Path, title: str
) -> None:
    """Draw the curves of several runs, and their test mIoU against training speed. Training curves are dotted.

    Args:
        histories: name of the run -> rows of history.csv.
        scores: name of the run -> images/s in training, test mIoU.
    """
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(2, 2).flatten()
    colors = colormaps["tab20" if len(histories) > 10 else "tab10"].colors
    for number, (name, history) in enumerate(histories.items()):
        color = colors[number % len(colors)]
        # Dashed lines lie above solid ones, and dots are shifted, so equal curves are all visible.
        style = {"ls": LINES[number % 3], "zorder": 2 + number % 3 / 10}
        dots = {"ls": (4 * number / len(histories), (1, 3)), "lw": 1.2, "marker": None}
        for axes, key in zip(panels, ("loss", "pixel_accuracy", "miou"), strict=False):
            plot_by_epoch(axes, history, f"train_{key}", color=color, **dots)
            plot_by_epoch(axes, history, f"val_{key}", color=color, label=name, **style)
        panels[3].plot(*scores[name], "o", color=color, markersize=9)
    for axes, label in zip(panels, ("loss", "pixel accuracy", "mIoU"), strict=False):
        axes.set_ylabel(label)
    limit_loss(panels[0], histories)
    panels[3].set(xlabel="images/s in training", ylabel="mIoU (test)")
    panels[3].margins(0.15)
    panels[3].grid(alpha=0.3)
    lines = [
        Line2D([], [], color=colors[number % len(colors)], ls=LINES[number % 3], label=name)
        for number, name in enumerate(histories)
    ]
    lines.append(Line2D([], [], color="black", ls=":", lw=1.2, label="training (others: validation)"))
    legend_by_row(figure, lines, 5, handlelength=3.5)
    save(figure, path)


def limit_loss(axes: Axes, histories: dict[str, list[dict]], splits: Sequence[str] = ("train", "val")) -> None:
    """Cut the loss axis at twice the median of all peaks, and name the curves that go higher."""
    peaks = {
        f"{name} ({split})": max(row[f"{split}_loss"] for row in history if row["epoch"])
        for name, history in histories.items()
        for split in splits
    }
    top = 2 * statistics.median_low(peaks.values())
    wild = [f"{name} up to {peak:,.1f}" for name, peak in peaks.items() if peak > top]
    if wild:
        axes.set_ylim(0, top)
        axes.set_title(textwrap.fill(f"above the axis: {'; '.join(wild)}", 80), fontsize=8)


def legend_by_row(figure: Figure, handles: list, columns: int, **style) -> None:
    """Add a legend below a figure, filled row by row; matplotlib would fill it column by column."""
    handles = [handle for column in range(columns) for handle in handles[column::columns]]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False, **style)


def wrapped(name: str, width: int) -> str:
    """Wrap a text to `width` characters at spaces, hyphens and underscores."""
    lines = textwrap.wrap(re.sub(r"([-_])(?=\w)", "\\1\0 ", name), width)
    return "\n".join(line.replace("\0 ", "").replace("\0", "") for line in lines)


def draw(data: SegmentationSet, seed: int, count: int = 5) -> list[int]:
    """Return the sorted indices of `count` random images of `data`."""
    return sorted(random.Random(seed).sample(range(len(data)), min(count, len(data))))


def side_by_side(
    models: dict[str, tuple[nn.Module, tuple[int, int]]],
    samples: list[tuple[str, Image.Image, np.ndarray | None]],
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    run: Run,
    title: str = "",
) -> Figure:
    """Return a figure with a row for each sample: image, truth and predictions, and a legend below.

    Args:
        models: column title -> model and its input size (height, width).
        samples: name, RGB image, and mask (H, W) uint8, or None if the truth is unknown.
    """
    rows, scores = [], {}
    for _, image, mask in samples:
        predictions = [predict(model, image, image_size, run) for model, image_size in models.values()]
        for column, prediction in enumerate(predictions if mask is not None else (), start=2):
            miou = ConfusionMatrix.of_image(prediction, mask, len(classes)).mean_iou()
            scores[len(rows), column] = f"mIoU {miou:.2f}"
        rows.append([np.asarray(image), mask, *predictions])
    names = [name for name, *_ in samples]
    return picture_grid(rows, ["image", "truth", *models], title, classes, palette, names, scores)


def predictions(model: nn.Module, sets: Sequence[SegmentationSet], run: Run, count: int = 5) -> Figure:
    """Return a figure of image, truth and prediction for `count` images of each set, drawn by the run's seed.

    The model's input has the image size of the last set.
    """
    samples, data = [part.sample(i) for part in sets for i in draw(part, run.seed, count)], sets[-1]
    title = f"{run.name}: {data.dataset} {', '.join(part.split for part in sets)}"
    return side_by_side({"prediction": (model, data.image_size)}, samples, data.classes, data.palette, run, title)


def plot_batch(images: torch.Tensor, masks: torch.Tensor, data: SegmentationSet, run: Run, count: int = 6) -> None:
    """Draw the first images (B, 3, H, W) float and masks (B, H, W) of a batch of `data` to plots/<run>_batch.png."""
    columns = {str(i + 1): pair for i, pair in enumerate(zip(images[:count], masks[:count], strict=True))}
    save(over_masks(columns, f"{run.name}: a training batch of {data.dataset}", data), run.plot("batch"))


def plot_augmentation(loader: Loader, run: Run) -> None:
    """Draw an image and its mask: without augmentation, after each augmentation, and after all together."""
    data, generator = loader.data, torch.Generator().manual_seed(run.seed)
    index = draw(data, run.seed, count=1)
    image, mask = data.images[index].float() / 255, data.masks[index].long()
    columns = {"original": (image, mask)}
    for function in loader.augment:
        inner = getattr(function, "func", function)  # of a functools.partial
        name = getattr(inner, "__name__", type(inner).__name__).removeprefix("random_")
        draws = [function(image, mask, generator) for _ in range(8)]
        # Show the strongest change: a random flip may do nothing, and a small rotation is hardly visible.
        columns[name] = max(draws, key=lambda drawn: (drawn[0] - F.interpolate(image, drawn[0].shape[2:])).abs().mean())
    for function in loader.augment:
        image, mask = function(image, mask, generator)
    columns = {name: (image[0], mask[0]) for name, (image, mask) in {**columns, "all together": (image, mask)}.items()}
    save(over_masks(columns, f"{run.name}: augmentation of {data.names[index[0]]}", data), run.plot("augmentation"))


def over_masks(columns: dict[str, tuple[torch.Tensor, torch.Tensor]], title: str, data: SegmentationSet) -> Figure:
    """Return a figure of images (3, H, W) float in [0, 1] above their masks (H, W), given by column title."""
    images = [image.permute(1, 2, 0).clamp(0, 1).cpu().numpy() for image, _ in columns.values()]
    masks = [mask.cpu().numpy() for _, mask in columns.values()]
    return picture_grid([images, masks], list(columns), title, data.classes, data.palette, names=[], captions={})


def picture_grid(
    rows: list[list[np.ndarray | None]],
    titles: list[str],
    title: str,
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    names: list[str],
    captions: dict[tuple[int, int], str],
) -> Figure:
    """Return a figure of RGB images (H, W, 3) and coloured masks (H, W), with a legend of the classes below.

    Args:
        rows: pictures of each row; None for an unknown mask.
        titles: titles of the columns.
        names: names of the rows.
        captions: (row, column) -> text below the picture.
    """
    masks = [mask for row in rows for mask in row if mask is not None and mask.ndim == 2]
    values = sorted({value for mask in masks for value in np.unique(mask).tolist()})
    columns = min(6, 5, 4, key=lambda count: -len(values) % count)  # fills the legend's last line best
    title, titles = wrapped(title, 30 * len(titles)), [wrapped(text, 34) for text in titles]
    # Sizes in inches.
    aspect = max(row[0].shape[0] / row[0].shape[1] for row in rows)
    row_height = 2.5 * max(aspect, 0.3) + 0.1
    lines = [title, max(titles, key=lambda text: text.count("\n")), "\n" * (-(-len(values) // columns))]
    height = row_height * len(rows) + 0.2 * sum(text.count("\n") + 1 for text in lines)
    figure = Figure(figsize=(2.5 * len(titles), height), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(len(rows), len(titles), squeeze=False)
    for (row, column), axes in np.ndenumerate(panels):
        picture = rows[row][column]
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(captions.get((row, column), ""), fontsize=8)
        if picture is None:
            axes.text(0.5, 0.5, "unknown", ha="center", transform=axes.transAxes, color="#888888")
        elif picture.ndim == 3:
            axes.imshow(picture)
        else:
            axes.imshow(colorize(picture, palette))
    for axes, text in zip(panels[0], titles, strict=True):
        axes.set_title(text, fontsize=10 if len(text) <= 28 else 8)
    for axes, name in zip(panels[:, 0], names, strict=False):
        axes.set_ylabel(name, fontsize=8)
    names, colors = {**dict(enumerate(classes)), VOID: "void"}, {**dict(enumerate(palette)), VOID: VOID_COLOR}
    patches = [
        Patch(facecolor=np.array(colors[value]) / 255, edgecolor="#888888", linewidth=0.5, label=names[value])
        for value in values
    ]
    legend_by_row(figure, patches, columns)
    return figure
