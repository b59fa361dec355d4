"""The meaning of mask pixels: classes, void, and the numbers and colours that encode both in files."""

from dataclasses import dataclass, field

import numpy as np

VOID = 255  # ignore_index: pixels without a class, neither trained on nor scored
VOID_COLOR = (224, 224, 192)  # as in PASCAL VOC


@dataclass(frozen=True)
class LabelMap:
    """Maps the pixel values of mask files to classes or VOID.

    A colour is one number, 0xRRGGBB.
    """

    numbers: dict[int, int]  # for grey and palette images: value -> class
    colors: dict[int, int] = field(default_factory=dict)  # for RGB images: colour -> class
    palettes_are_colors: bool = False  # read palette images by their colours, not by their numbers

    @classmethod
    def plain(cls, palette: tuple) -> "LabelMap":
        """Return VOC's map: numbers are classes, 255 is void; the colours are `palette` and VOID_COLOR."""
        numbers = {index: index for index in [*range(len(palette)), VOID]}
        colors = {color_number(color): index for index, color in enumerate(palette)}
        return cls(numbers, {color_number(VOID_COLOR): VOID, **colors})

    def classes_of(self, codes: np.ndarray, are_colors: bool) -> np.ndarray:
        """Return the classes (H, W) uint8 for `codes` (H, W), numbers or colours; the map must contain all of them."""
        known = self.colors if are_colors else self.numbers
        if codes.dtype == np.uint8:
            table = np.zeros(256, dtype=np.uint8)
            table[list(known)] = list(known.values())
            return table.take(codes)  # twice as fast as table[codes]
        keys = sorted(known)
        return np.array([known[key] for key in keys], dtype=np.uint8)[np.searchsorted(keys, codes)]


def color_number(color: tuple[int, int, int]) -> int:
    """Return (red, green, blue) as the number 0xRRGGBB."""
    red, green, blue = color
    return (red << 16) + (green << 8) + blue


def rgb(code: int) -> tuple[int, int, int]:
    """Return the colour 0xRRGGBB as (red, green, blue)."""
    return code >> 16, code >> 8 & 255, code & 255


def voc_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return VOC's colours for `count` classes: the bits of the class number go to red, green and blue in turn."""

    def channel(index: int, offset: int) -> int:
        return sum((index >> 3 * bit + offset & 1) << 7 - bit for bit in range(3))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(count))


def colorize(mask: np.ndarray, palette: tuple) -> np.ndarray:
    """Return an RGB image (H, W, 3) uint8 of a mask (H, W) with class numbers and VOID."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(palette)] = palette
    colors[VOID] = VOID_COLOR
    return colors[mask]
