"""How long do confusion matrix and mIoU take here and with NumPy?

Run       python benchmarks/metrics.py
          python benchmarks/metrics.py --classes 150 --image-size 512

Scores the same predictions in turn with np.bincount (the usual way), class by class with NumPy (as tutorials do), and
with our confusion matrix. Prints images/s, medians over --repeats, and ratios to the faster NumPy way and to the
tutorials' way. All must give the same mIoU.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from benchmarks.measure import in_turn, print_table
from benchmarks.reference import count_classes, count_pixels, mean_iou
from common.cli import cli
from common.datasets import VOID, Size, height_and_width
from common.datasets.voc import CLASSES
from common.metrics import ConfusionMatrix
from common.run import Run, experiment


@experiment
def main(
    classes: int = len(CLASSES),  # number of classes
    image_size: Size = 224,  # pixels
    batch_size: int = 16,  # images per batch
    batches: int = 8,  # batches to score
    repeats: int = 5,  # number of measurements
    run: Run = Run(),
):
    pairs = [scene(classes, (batch_size, *height_and_width(image_size)), seed, run) for seed in range(batches)]

    def numpy_miou(count: Callable) -> float:
        counts = np.zeros((2, classes), np.int64)
        for prediction, target in pairs:
            counts += count(prediction.cpu().numpy(), target.cpu().numpy(), classes)
        return mean_iou(counts)

    def our_miou() -> float:
        matrix = ConfusionMatrix(classes, run.device)
        for prediction, target in pairs:
            matrix.update(prediction, target)
        return matrix.mean_iou()

    plain = {"np.bincount": count_pixels, "class by class with NumPy": count_classes}
    candidates = {name: partial(numpy_miou, count) for name, count in plain.items()} | {"this project": our_miou}
    found = {name: function() for name, function in candidates.items()}
    times = in_turn(candidates, repeats, run)

    images = batches * batch_size
    title = f"mIoU of {images} images at {image_size}, {classes} classes, batch {batch_size}"
    rates = print_table(title, {name: images / median for name, (_, median) in times.items()}, list(plain))
    print("mIoU: " + ", ".join(f"{name} {value:.6f}" for name, value in found.items()))
    return rates, found


def scene(classes: int, shape: tuple[int, int, int], seed: int, run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    """Return prediction and target, int64 of `shape`: 8x8 patches of one class, 10 % void, at least half correct."""
    rng = np.random.default_rng(seed)
    batch, height, width = shape
    patches = (batch, -(-height // 8), -(-width // 8))
    target = rng.integers(0, classes, patches)
    prediction = np.where(rng.random(patches) < 0.5, target, rng.integers(0, classes, patches))
    target[rng.random(patches) < 0.1] = VOID
    pixels = (np.kron(part, np.ones((1, 8, 8), np.int64))[:, :height, :width] for part in (prediction, target))
    prediction, target = (torch.from_numpy(np.ascontiguousarray(part)).to(run.device) for part in pixels)
    return prediction, target


if __name__ == "__main__":
    cli(main)
