"""What a data set is, before it is decoded and after."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image

VOID = 255  # the mask value that is no class: neither trained on nor scored
VOID_COLOR = (224, 224, 192)  # VOC's colour for it


@dataclass(frozen=True)
class Coding:
    """Which class, or VOID, the pixels of mask files stand for.

    Colours are single numbers, 0xRRGGBB.
    """

    numbers: dict[int, int]  # of grey and palette pictures: value -> class
    colors: dict[int, int] = field(default_factory=dict)  # of RGB pictures: colour -> class
    palettes_are_colors: bool = False  # palette pictures are read by their colours, not by their numbers

    @classmethod
    def plain(cls, palette: tuple) -> "Coding":
        """Return VOC's: numbers are classes and 255 is void; colours are those of `palette`, and VOID_COLOR."""
        classes = range(len(palette))
        colors = {color_number(color): index for index, color in enumerate(palette)}
        return cls({**dict(zip(classes, classes, strict=True)), VOID: VOID}, {color_number(VOID_COLOR): VOID, **colors})


def color_number(color: tuple[int, int, int]) -> int:
    """Return (red, green, blue) as the number 0xRRGGBB."""
    red, green, blue = color
    return (red << 16) + (green << 8) + blue


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
    coding: Coding | None = None  # of the mask files, if the set has such
    splits: dict[str, list[str]] = field(default_factory=dict)  # names of all images of the data set, by split

    def __len__(self) -> int:
        return len(self.images)

    def select(self, indices: list[int]) -> "SegmentationSet":
        """Return the set of the images at `indices` alone."""
        names = [self.names[i] for i in indices]
        return replace(self, images=self.images[indices], masks=self.masks[indices], names=names)

    def sample(self, index: int) -> tuple[str, Image.Image, np.ndarray]:
        """Return name, RGB image and mask (H, W) uint8 of one image, to look at."""
        image = Image.fromarray(self.images[index].permute(1, 2, 0).numpy())
        return f"{self.split} {self.names[index]}", image, self.masks[index].numpy()

    @property
    def num_classes(self) -> int:
        """Number of classes, background included, void not."""
        return len(self.classes)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return tuple(self.images.shape[-2:])


@dataclass
class Source:
    """What a data set consists of and how to read it.

    A sample is a tuple whose first item is its name; the rest (paths, numbers) is for `read`, which returns the RGB
    image and the mask, (H, W) uint8 with classes and VOID, both at their own size. The cache is renewed when a sample
    or a file that it names changes.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    splits: dict[str, list[tuple]]  # "train", "val", "test"
    read: Callable[[tuple], tuple[Image.Image, np.ndarray]]
    coding: Coding | None = None  # of the mask files, if the set has such
    notes: tuple[str, ...] = ()  # what was found out about the files, for the screen


def split_off(samples: list, fraction: float = 0.1, seed: int = 0) -> tuple[list, list]:
    """Split `samples` at random into (rest, part): for sets that publish no validation split.

    The split depends on `seed` alone, not on the run's, so all runs are selected on the same images.
    """
    chosen = set(random.Random(seed).sample(range(len(samples)), max(1, round(fraction * len(samples)))))
    rest = [sample for i, sample in enumerate(samples) if i not in chosen]
    return rest, [samples[i] for i in sorted(chosen)]
