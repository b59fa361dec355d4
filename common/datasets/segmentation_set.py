"""What a data set is, before it is decoded and after."""

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

    The images lie in memory as (N, H, W, 3), which is what torch calls channels-last.
    """

    images: torch.Tensor
    masks: torch.Tensor
    names: list[str]  # of the N images
    classes: tuple[str, ...]  # names of the mask values 0, 1, ...
    palette: tuple[tuple[int, int, int], ...]  # their colours
    dataset: str  # "voc2007"
    split: str  # "train", "val" or "test"
    label_map: LabelMap | None = None  # of the mask files, if the set has such
    splits: dict[str, list[str]] = field(default_factory=dict)  # names of all images of the data set, by split
    fingerprint: str = ""  # hash of the files that it was decoded from

    def __len__(self) -> int:
        return len(self.images)

    def select(self, indices: list[int]) -> "SegmentationSet":
        """Return the set of the images at `indices` alone."""
        names = [self.names[i] for i in indices]
        return replace(self, images=self.images[indices], masks=self.masks[indices], names=names)

    def sample(self, index: int) -> tuple[str, Image.Image, np.ndarray]:
        """Return name, RGB image and mask (H, W) uint8 of one image, to look at."""
        image = Image.fromarray(self.images[index].permute(1, 2, 0).numpy())
        name = self.names[index]
        return name if name.startswith(self.split) else f"{self.split} {name}", image, self.masks[index].numpy()

    @property
    def unlabelled(self) -> bool:
        """Whether all masks are void: those of a test whose answers are kept back, which can be predicted alone."""
        return int(self.masks.min()) == VOID

    def pixel_counts(self) -> torch.Tensor:
        """Return how many pixels each class has, (num_classes,) int64."""
        parts = self.masks.split(64)  # mapped from disk: never the whole set in memory
        return sum(masks.flatten().bincount(minlength=256) for masks in parts)[: self.num_classes]

    @property
    def num_classes(self) -> int:
        """Number of classes, background included, void not."""
        return len(self.classes)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return tuple(self.images.shape[-2:])


@dataclass
class DatasetSpec:
    """What a data set consists of and how to read it.

    A sample is a tuple: its name, and the paths of its image and mask (None: it has none, all is void), or what else
    `read_sample` takes (paths, numbers). The cache is renewed when a sample or a file that it names changes.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    splits: dict[str, list[tuple]]  # "train", "val", "test"
    label_map: LabelMap | None = None  # of the mask files, if the set has such
    notes: tuple[str, ...] = ()  # what was found out about the files, for the screen
    read_sample: Callable[[tuple], tuple[Image.Image, np.ndarray]] | None = None  # of a set without mask files
    warnings: tuple[str, ...] = ()  # about files that are perhaps not read as the user means them

    def read(self, sample: tuple) -> tuple[Image.Image, np.ndarray]:
        """Return the RGB image and the mask, (H, W) uint8 with classes and VOID, both at their own size."""
        if self.read_sample:
            return self.read_sample(sample)
        _, image_path, mask_path = sample
        if mask_path is None:
            image = read_image(image_path)
            return image, np.full(image.size[::-1], VOID, dtype=np.uint8)
        return read_pair(image_path, mask_path, self.label_map)


def split_off(samples: list) -> tuple[list, list]:
    """Split `samples` at random into (nine tenths, a tenth): for sets that publish no validation split.

    The split does not depend on the run's seed, so all runs are selected on the same images.
    """
    chosen = set(random.Random(0).sample(range(len(samples)), max(1, round(len(samples) / 10))))
    rest = [sample for i, sample in enumerate(samples) if i not in chosen]
    return rest, [samples[i] for i in sorted(chosen)]
