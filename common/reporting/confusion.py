"""Draw the confusion matrix of a test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.metrics import ConfusionMatrix
from common.reporting.plotting import TRAIN, save, wrapped

MOST = 30  # with more classes, the cells have no numbers
LISTED = 40  # number of confusions listed beside such a matrix


def plot_confusion(matrix: ConfusionMatrix, classes: Sequence[str], path: Path, title: str) -> None:
    """Draw a confusion matrix; each cell shows the share of the true class (the row) and the number of pixels.

    With more than `MOST` classes, cells have only colours, and a list shows the most frequent confusions.
    """
    counts = matrix.counts[:-1].cpu()
    shares = (counts / counts.sum(1, keepdim=True)).numpy()  # NaN, which is not drawn, if a class has no pixel
    large = len(classes) > MOST
    side = 6 if large else 0.62 * max(len(classes), 5)  # inches
    figure = Figure(figsize=(14, 7.5) if large else (side + 2, side + 2), layout="constrained")
    figure.suptitle(wrapped(title, 150 if large else round(9 * side + 15)), fontsize=10)
    axes, *right = figure.subplots(1, 1 + large, squeeze=False)[0]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted class (cells: share of the true class, pixels)", ylabel="true class")
    if large:
        list_confusions(right[0], counts.numpy(), shares, classes)
    else:
        axes.set_xticks(range(len(classes)), classes, rotation=90 if len(classes) > 5 else 0, fontsize=8)
        there = counts.sum(1).tolist()
        rows = [name if pixels else f"{name} (no pixel)" for name, pixels in zip(classes, there, strict=True)]
        axes.set_yticks(range(len(classes)), rows, fontsize=8)
        style = {"ha": "center", "va": "center", "fontsize": 8 if len(classes) <= 10 else 7, "in_layout": False}
        for target, predicted in np.argwhere(counts.numpy()):
            share, pixels = shares[target, predicted], counts[target, predicted]
            color = "white" if share > 0.5 else "black"
            axes.text(predicted, target, f"{percent(share)}\n{pixels:,}", color=color, **style)
    save(figure, path)


def list_confusions(axes: Axes, counts: np.ndarray, shares: np.ndarray, classes: Sequence[str]) -> None:
    """Draw a bar for each of the largest confusions: its share of the true class, and its number of pixels."""
    found = confusions(counts)[:LISTED]
    widths = [shares[target, predicted] for target, predicted, _ in found]
    axes.barh(range(len(found)), widths, color=TRAIN)
    names = [f"{classes[target]} predicted as {classes[predicted]}" for target, predicted, _ in found]
    axes.set_yticks(range(len(found)), names, fontsize=8)
    for place, ((*_, pixels), share) in enumerate(zip(found, widths, strict=True)):
        axes.text(share, place, f" {percent(share)}, {pixels:,}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.25, y=0.01)
    axes.set_xlabel("share of the true class; list sorted by number of pixels")


def percent(share: float) -> str:
    """Format a share above 0 as whole percent."""
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def confusions(counts: torch.Tensor) -> list[tuple[int, int, int]]:
    """Return (target, predicted, pixels) of the classes that a (C, C) matrix shows confused, the most pixels first."""
    pairs = [(t, p, n) for t, row in enumerate(counts.tolist()) for p, n in enumerate(row) if n and t != p]
    return sorted(pairs, key=lambda pair: -pair[2])
