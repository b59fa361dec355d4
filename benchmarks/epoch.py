"""How long does an epoch take here and in plain PyTorch loops?

Run       python benchmarks/epoch.py                                    # the baseline FCN
          python benchmarks/epoch.py --model unet --batch-size 8
          python benchmarks/epoch.py --precision fp32                   # without bf16
          python benchmarks/epoch.py --compile                          # also with torch.compile

An epoch includes loading, training, validation and scores. The candidates take turns: common/engine.py, the best plain
loop (persistent workers, or no workers) and the tutorial loop; benchmarks/reference.py describes both loops. Prints
images/s, medians over --repeats epochs, and ratios to the best plain loop and to the tutorial loop. The first epochs
and our decoding, which is needed once, are printed but not counted. Needs VOC 2007 below --data-root.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.measure import in_turn, print_table
from benchmarks.reference import Augment, count_classes, count_pixels, mean_iou, our_loaders, reference_loader, voc_part
from common.cli import cli
from common.datasets import VOID, Size
from common.datasets.voc import CLASSES
from common.engine import evaluate, train_one_epoch
from common.loader import Loader
from common.losses import CrossEntropy
from common.models import Model, build
from common.run import Run, experiment

TUTORIAL = "tutorial loop, fp32"


@experiment
def main(
    model: Model = "basic_fcn",  # network, with random weights
    image_size: Size = 224,  # pixels
    images: int = 60,  # maximum number of images for training, and again for validation
    batch_size: int = 16,  # images per step
    augment: Augment = "all",  # "flip" mirrors training images; "all" also rotates and crops them
    workers: int = 2,  # worker processes of the plain loops; ours has none
    repeats: int = 3,  # epochs measured
    run: Run = Run(),
):
    with voc_part(run, {"train": images, "val": images, "test": 1}) as run:
        start = time.perf_counter()
        loaders = our_loaders(image_size, batch_size, augment, run)
        decoding = time.perf_counter() - start

        def network() -> nn.Module:
            return build(model, len(CLASSES), encoder="resnet18", pretrained=False).to(run.device)

        def plain_epoch(workers: int, best: bool) -> Callable[[], float]:
            plain = (
                reference_loader(split, image_size, batch_size, augment, workers, run, persistent=best)
                for split in ("train", "val")
            )
            optimizer = torch.optim.AdamW((net := network()).parameters(), fused=best)
            return partial(reference_epoch, net, optimizer, *plain, run, best=best)

        epochs = {f"best plain loop, {n} workers": plain_epoch(n, best=True) for n in (workers, 0)}
        epochs[TUTORIAL] = plain_epoch(workers, best=False)
        names = list(epochs)
        epochs["this project"] = our_epoch(network(), *loaders, run)
        if run.compile:
            epochs["this project, compiled"] = our_epoch(torch.compile(network()), *loaders, run)
        times = in_turn(epochs, repeats, run, tutorial=TUTORIAL)

    counts = [loader.num_images for loader in loaders]
    title = f"{model}, {counts[0]} + {counts[1]} images at {image_size}, batch {batch_size}, {run.precision}"
    rates = print_table(title, {name: sum(counts) / median for name, (_, median) in times.items()}, names)
    first = ", ".join(f"{name} {first:.1f} s" for name, (first, _) in times.items())
    print(f"not counted: the first epoch of each ({first}), decoding once ({decoding:.1f} s)")
    return rates


def our_epoch(network: nn.Module, train_loader: Loader, val_loader: Loader, run: Run) -> Callable[[], float]:
    """Return a function that trains `network` for one epoch like `fit`, validates it, and returns the mIoU."""
    network.to(memory_format=torch.channels_last)
    optimizer, criterion = torch.optim.AdamW(network.parameters(), fused=True), CrossEntropy().to(run.device)

    def epoch() -> float:
        train_loader.set_epoch(train_loader.epoch + 1)
        _, matrix = train_one_epoch(network, train_loader, criterion, optimizer, None, run)
        matrix.mean_iou()
        _, matrix = evaluate(network, val_loader, criterion, run)
        return matrix.mean_iou()

    return epoch


def reference_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_loader: DataLoader,
    val_loader: DataLoader,
    run: Run,
    best: bool = False,
) -> float:
    """Train `model` for one epoch, then validate it; return the validation mIoU.

    Args:
        best: use channels-last, the run's precision, and np.bincount.
    """
    criterion = nn.CrossEntropyLoss(ignore_index=VOID)
    count = count_pixels if best else count_classes
    layout = torch.channels_last if best else torch.contiguous_format
    model.to(memory_format=layout)
    for loader in (train_loader, val_loader):
        training = loader is train_loader
        model.train(training)
        counts, losses = np.zeros((2, len(CLASSES)), np.int64), []
        for images, masks in loader:
            images, masks = images.to(run.device, memory_format=layout), masks[:, 0].to(run.device)
            with torch.set_grad_enabled(training):
                with run.autocast() if best else contextlib.nullcontext():
                    logits = model(images)
                loss = criterion(logits.float(), masks)
            if training:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(loss.item())
            counts += count(logits.argmax(1).cpu().numpy(), masks.cpu().numpy(), len(CLASSES))
        miou = mean_iou(counts)
    return miou


if __name__ == "__main__":
    cli(main)
