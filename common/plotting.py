"""Pictures: the curves of a run, and predictions beside the truth."""

import random
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import nn

from common.datasets.segmentation_set import VOID, SegmentationSet
from common.files import atomic
from common.metrics import ConfusionMatrix
from common.run import Run

VOID_COLOR = (224, 224, 192)
TRAIN, VAL, BEST = "#1f77b4", "#d95f02", "#555555"


def save(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` atomically, as PNG."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight")


def plot_curves(history: list[dict], path: Path, title: str) -> None:
    """Draw loss, mIoU, pixel accuracy and learning rate over the epochs; the best epoch is marked."""
    epochs = [row["epoch"] for row in history]
    best = max(history, key=lambda row: row["val_miou"])
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
    for axis in axes:
        axis.axvline(best["epoch"], color=BEST, linestyle="--", linewidth=1, label=f"best epoch ({best['epoch']})")
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    axes[1].plot(best["epoch"], best["val_miou"], "*", color=VAL, markersize=11)
    axes[0].legend()
    save(figure, path)


@torch.no_grad()
def plot_predictions(model: nn.Module, data: SegmentationSet, run: Run, count: int = 5) -> None:
    """Draw image, truth and prediction of `count` images of `data`, drawn by the run's seed, with a legend."""
    chosen = sorted(random.Random(run.seed).sample(range(len(data)), min(count, len(data))))
    images = data.images[chosen].to(run.device).float() / 255
    with run.autocast():
        predictions = model.eval()(images).argmax(1).cpu()
    masks = data.masks[chosen].long()

    figure = Figure(figsize=(7.5, 2.45 * len(chosen) + 0.6), layout="constrained")
    rows = figure.subplots(len(chosen), 3, squeeze=False)
    for axes, index, mask, prediction in zip(rows, chosen, masks, predictions, strict=True):
        matrix = ConfusionMatrix(data.num_classes)
        matrix.update(prediction[None], mask[None])
        axes[0].imshow(data.images[index].permute(1, 2, 0).numpy())
        axes[1].imshow(colorize(mask.numpy(), data.palette))
        axes[2].imshow(colorize(prediction.numpy(), data.palette))
        axes[0].set_ylabel(data.names[index], fontsize=8)
        axes[2].set_ylabel(f"mIoU {matrix.mean_iou():.2f}", fontsize=8)
        axes[2].yaxis.set_label_position("right")
        for axis in axes:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(rows[0], ("image", "truth", "prediction"), strict=True):
        axis.set_title(title)
    figure.suptitle(f"{run.name}: {data.dataset} {data.split}", fontsize=10)
    legend(figure, data, np.union1d(masks.numpy(), predictions.numpy()))
    save(figure, run.plot("predictions"))


def colorize(mask: np.ndarray, palette: tuple) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 of a mask (H, W) of class numbers and VOID."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(palette)] = palette
    colors[VOID] = VOID_COLOR
    return colors[mask]


def legend(figure: Figure, data: SegmentationSet, values: np.ndarray) -> None:
    """Put a legend below `figure` that names the classes in `values`."""
    names, colors = {**dict(enumerate(data.classes)), VOID: "void"}, {**dict(enumerate(data.palette)), VOID: VOID_COLOR}
    patches = [
        Patch(facecolor=np.array(colors[value]) / 255, edgecolor="#888888", linewidth=0.5, label=names[value])
        for value in values.tolist()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(patches)), fontsize=8, frameon=False)
