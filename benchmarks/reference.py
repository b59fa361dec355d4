"""What a user would write instead: the loops that `epoch.py` and `loader.py` set this project beside.

In both, torchvision's VOCSegmentation reads two files for each sample in each epoch, and a DataLoader transforms them
together (torchvision.transforms.v2) as Pillow images.

The tutorial loop is what tutorials and published solutions have: new worker processes in every epoch, fp32 in torch's
usual layout, IoU counted class by class with NumPy, memory as the C library has it. The best plain loop has what a user
could add in a line each: workers that live on, or none, the run's precision, channels-last, fused AdamW, np.bincount,
and freed memory kept.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.datasets import VOCSegmentation, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from common.augment import random_hflip, random_rotated_crop
from common.datasets import VOID, Size, load
from common.datasets.voc import CLASSES
from common.loader import Loader
from common.run import Run
from common.system.device import keep_freed_memory

# The same augmentation twice: ours, and as many of the transforms that do as much.
Augment = Literal["none", "flip", "all"]
TRANSFORMS: dict[Augment, int] = {"none": 0, "flip": 1, "all": 3}


def our_loaders(image_size: Size, batch_size: int, augment: Augment, data: Run, run: Run) -> tuple[Loader, Loader]:
    """Return this project's loaders of VOC 2007's training and validation images, which `data` says where to find."""
    functions = {"none": [], "flip": [random_hflip]}
    functions["all"] = [partial(random_rotated_crop, size=image_size), random_hflip]
    train_set, val_set, _ = load("voc2007", image_size, data, train_scale=1.67 if augment == "all" else 1)
    train_loader = Loader(train_set, batch_size, run, shuffle=True, augment=functions[augment])
    return train_loader, Loader(val_set, batch_size, run)


def transforms(size: tuple[int, int], augment: Augment) -> v2.Compose:
    """Return what is done to a sample, an RGB image and a palette mask: `size` is (height, width) of the result."""
    theirs = [
        v2.RandomHorizontalFlip(),
        v2.RandomRotation(15, fill={Image.Image: 0, tv_tensors.Mask: VOID}),
        v2.RandomResizedCrop(size, scale=(0.36, 1), ratio=(1, 1)),  # areas: the sides are 0.6 to 1, as ours
    ]
    types = {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}
    return v2.Compose([v2.Resize(size), *theirs[: TRANSFORMS[augment]], v2.ToImage(), v2.ToDtype(types, scale=True)])


def reference_loader(
    root: Path,
    split: str,
    image_size: Size,
    batch_size: int,
    augment: Augment,
    workers: int,
    run: Run,
    persistent: bool = False,
) -> DataLoader:
    """Return a loader of VOC 2007's `split` below `root`; its batches are shuffled if it is "train".

    Args:
        persistent: the workers live as long as the loader, not for an epoch.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    data = VOCSegmentation(str(root), year="2007", image_set=split, transforms=transforms(size, augment))
    return DataLoader(
        wrap_dataset_for_transforms_v2(data),
        batch_size,
        shuffle=split == "train",
        num_workers=workers,
        pin_memory=run.device.type == "cuda",
        persistent_workers=persistent and workers > 0,
    )


def reference_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_loader: DataLoader,
    val_loader: DataLoader,
    run: Run,
    best: bool = False,
) -> float:
    """Train `model` for an epoch, then validate it; return the validation mIoU.

    Args:
        best: channels-last, the run's precision, and np.bincount.
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


@contextlib.contextmanager
def plain_memory() -> Iterator[None]:
    """Within the block, undo `keep_freed_memory`: the tutorial loop leaves memory to the C library.

    Afterwards as much is kept as before, lest what runs next pay for fresh pages.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    trim_threshold, mmap_max = -1, -4
    before = resident()
    libc.mallopt(mmap_max, 65536)  # glibc's defaults
    libc.mallopt(trim_threshold, 128 * 1024)
    libc.malloc_trim(0)
    try:
        yield
    finally:
        keep_freed_memory()
        torch.empty(max(0, before - resident()), dtype=torch.uint8).fill_(1)


def resident() -> int:
    """Return the bytes that this process has in memory; needs Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def count_classes(prediction: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the pixels in each class's intersection and in its union, (2, num_classes), void left out."""
    valid = target != VOID
    counts = np.zeros((2, num_classes), np.int64)
    for c in range(num_classes):
        predicted, true = (prediction == c) & valid, target == c
        counts[0, c] = np.logical_and(predicted, true).sum()
        counts[1, c] = np.logical_or(predicted, true).sum()
    return counts


def count_pixels(prediction: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Return what `count_classes` does, from one np.bincount of the pixels of every pair of classes."""
    valid = target != VOID
    pairs = num_classes * target[valid] + prediction[valid]
    return of_matrix(np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes))


def of_matrix(matrix: np.ndarray) -> np.ndarray:
    """Return the pixels in each class's intersection and in its union, (2, num_classes), from a confusion matrix."""
    hit = matrix.diagonal()
    return np.stack([hit, matrix.sum(0) + matrix.sum(1) - hit])


def mean_iou(counts: np.ndarray) -> float:
    """Return the mean IoU over the classes whose union is not empty; NaN if none is."""
    intersection, union = counts[:, counts[1] > 0]
    return float((intersection / union).mean()) if len(union) else float("nan")
