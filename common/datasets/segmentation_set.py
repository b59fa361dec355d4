"""The two forms of a data set: `DatasetSpec` lists its files, `SegmentationSet` holds one decoded split."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image

from common.datasets.reading import read_image, read_pair
from common.labels import VOID, LabelMap


@dataclass
class SegmentationSet:
    """One decoded split: `images` (N, 3, H, W) and `masks` (N, H, W), both uint8, mapped from disk.

    The layout of the images in memory is (N, H, W, 3), torch's channels-last. Masks hold classes and VOID.
    """

    images: torch.Tensor
    masks: torch.Tensor
    names: list[str]  # of the N images
    classes: tuple[str, ...]  # names of the mask values 0, 1, ...
    palette: tuple[tuple[int, int, int], ...]  # a colour for each class
    dataset: str  # such as "voc2007"
    split: str  # "train", "val" or "test"
    label_map: LabelMap | None = None  # of the mask files, if the set has any
    splits: dict[str, list[str]] = field(default_factory=dict)  # names of all images of the data set, by split
    fingerprint: str = ""  # hash of the source files

    def __len__(self) -> int:
        return len(self.images)

    def select(self, indices: list[int]) -> "SegmentationSet":
        """Return the subset of the images at `indices`."""
        names = [self.names[i] for i in indices]
        return replace(self, images=self.images[indices], masks=self.masks[indices], names=names)

    def sample(self, index: int) -> tuple[str, Image.Image, np.ndarray]:
        """Return the name, the RGB image and the mask (H, W) uint8 of one image, for a picture."""
        image = Image.fromarray(self.images[index].permute(1, 2, 0).numpy())
        name = self.names[index]
        return name if name.startswith(self.split) else f"{self.split} {name}", image, self.masks[index].numpy()

    @property
    def unlabelled(self) -> bool:
        """Whether all masks are void, as in a test set without public labels: predict it, but do not score it."""
        return int(self.masks.min()) == VOID

    def pixel_counts(self) -> torch.Tensor:
        """Return the number of pixels of each class, (num_classes,) int64."""
        parts = self.masks.split(64)  # in parts, because the set may be larger than the memory
        return sum(masks.flatten().bincount(minlength=256) for masks in parts)[: self.num_classes]

    @property
    def num_classes(self) -> int:
        """Number of classes, with background and without void."""
        return len(self.classes)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return tuple(self.images.shape[-2:])


@dataclass
class DatasetSpec:
    """The classes and samples of a data set, and how to read a sample.

    A sample is a tuple: its name, the path of its image and the path of its mask (None means that all pixels are void).
    With `read_sample`, the items after the name are the paths or numbers which that function takes. If a sample or a
    file of a sample changes, the cache is renewed.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    splits: dict[str, list[tuple]]  # "train", "val", "test"
    label_map: LabelMap | None = None  # of the mask files, if the set has any
    notes: tuple[str, ...] = ()  # about the files, to be printed
    read_sample: Callable[[tuple], tuple[Image.Image, np.ndarray]] | None = None  # for a set without mask files
    warnings: tuple[str, ...] = ()  # about files that may have been misunderstood

    def read(self, sample: tuple) -> tuple[Image.Image, np.ndarray]:
        """Return the RGB image and the mask (H, W) uint8 with classes and VOID, both at their original size."""
        if self.read_sample:
            return self.read_sample(sample)
        _, image_path, mask_path = sample
        if mask_path is None:
            image = read_image(image_path)
            return image, np.full(image.size[::-1], VOID, dtype=np.uint8)
        return read_pair(image_path, mask_path, self.label_map)


def split_off(samples: list) -> tuple[list, list]:
    """Split `samples` at random into nine tenths and one tenth, for sets without an official validation split.

    The split does not depend on the run's seed, so all runs validate on the same images.
    """
    chosen = set(random.Random(0).sample(range(len(samples)), max(1, round(len(samples) / 10))))
    rest = [sample for i, sample in enumerate(samples) if i not in chosen]
    return rest, [samples[i] for i in sorted(chosen)]
