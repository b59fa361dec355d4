"""Plain PyTorch loading and scoring, for comparison in `epoch.py` and `loader.py`.

In all plain loops, torchvision's VOCSegmentation reads two files per sample in each epoch, and a DataLoader transforms
them together as Pillow images (torchvision.transforms.v2).

The tutorial loop follows tutorials and published solutions: new worker processes in every epoch, fp32 in torch's
default layout, IoU class by class with NumPy, the C library's default memory settings. The best plain loop adds changes
that cost a user one line each: persistent or no workers, the run's precision, channels-last, fused AdamW, np.bincount,
and `keep_freed_memory`.
"""

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.datasets import VOCSegmentation, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from common.augment import random_hflip, random_rotated_crop
from common.datasets import DATASETS, VOID, Size, height_and_width, load
from common.loader import Loader
from common.run import Run

Augment = Literal["none", "flip", "all"]


@contextlib.contextmanager
def voc_part(run: Run, counts: dict[str, int]) -> Iterator[Run]:
    """Yield a copy of `run` whose data root has only the first images of VOC 2007, and whose cache is empty.

    Args:
        counts: maximum number of images in "train", "val" and "test".
    """
    spec, voc = DATASETS["voc2007"](run.data_root), Path("VOCdevkit/VOC2007")
    run.cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run.cache_dir, prefix="benchmark-") as temporary:
        part = copy.copy(run)
        part.data_root, part.cache_dir = Path(temporary), Path(temporary, "cache")
        lists = part.data_root / voc / "ImageSets/Segmentation"
        lists.mkdir(parents=True)
        for split, count in counts.items():
            names = [name for name, *_ in spec.splits[split][:count]]
            (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        for kind in ("JPEGImages", "SegmentationClass"):
            (part.data_root / voc / kind).symlink_to((run.data_root / voc / kind).resolve(), target_is_directory=True)
        yield part


def our_loaders(image_size: Size, batch_size: int, augment: Augment, run: Run) -> tuple[Loader, Loader]:
    """Return our loaders of VOC 2007's training and validation images."""
    functions = {"none": [], "flip": [random_hflip]}
    functions["all"] = [partial(random_rotated_crop, size=image_size), random_hflip]
    train_set, val_set, _ = load("voc2007", image_size, run, train_scale=1.67 if augment == "all" else 1)
    train_loader = Loader(train_set, batch_size, run, shuffle=True, augment=functions[augment])
    return train_loader, Loader(val_set, batch_size, run)


def reference_loader(
    split: str,
    image_size: Size,
    batch_size: int,
    augment: Augment,
    workers: int,
    run: Run,
    persistent: bool = False,
) -> DataLoader:
    """Return a plain loader of VOC 2007's `split` with the augmentation of `our_loaders`; only "train" is shuffled.

    Args:
        persistent: workers live as long as the loader, not only for one epoch.
    """
    size = height_and_width(image_size)
    augmentations = [
        v2.RandomHorizontalFlip(),
        v2.RandomRotation(15, fill={Image.Image: 0, tv_tensors.Mask: VOID}),
        v2.RandomResizedCrop(size, scale=(0.36, 1), ratio=(1, 1)),  # areas; sides are 0.6 to 1, as in ours
    ]
    types = {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}
    to_tensors = [v2.ToImage(), v2.ToDtype(types, scale=True)]
    transforms = v2.Compose([v2.Resize(size), *augmentations[: {"none": 0, "flip": 1, "all": 3}[augment]], *to_tensors])
    data = VOCSegmentation(str(run.data_root), year="2007", image_set=split, transforms=transforms)
    return DataLoader(
        wrap_dataset_for_transforms_v2(data),
        batch_size,
        shuffle=split == "train",
        num_workers=workers,
        pin_memory=run.device.type == "cuda",
        persistent_workers=persistent and workers > 0,
    )


def count_classes(prediction: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the pixels in each class's intersection and union, (2, num_classes), without void."""
    valid = target != VOID
    counts = np.zeros((2, num_classes), np.int64)
    for c in range(num_classes):
        predicted, true = (prediction == c) & valid, target == c
        counts[0, c] = np.logical_and(predicted, true).sum()
        counts[1, c] = np.logical_or(predicted, true).sum()
    return counts


def count_pixels(prediction: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the same as `count_classes`, from one np.bincount over pairs of classes."""
    valid = target != VOID
    pairs = num_classes * target[valid] + prediction[valid]
    matrix = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    hit = matrix.diagonal()
    return np.stack([hit, matrix.sum(0) + matrix.sum(1) - hit])


def mean_iou(counts: np.ndarray) -> float:
    """Return the mean IoU over the classes with a non-empty union; NaN without such classes."""
    intersection, union = counts[:, counts[1] > 0]
    return float((intersection / union).mean()) if len(union) else float("nan")
