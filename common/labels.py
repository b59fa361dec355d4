"""What the pixels of masks mean: classes, void, and the values and colours that stand for them in files."""

from dataclasses import dataclass, field

import numpy as np

VOID = 255  # the mask value that is no class: neither trained on nor scored
VOID_COLOR = (224, 224, 192)  # VOC's colour for it


@dataclass(frozen=True)
class LabelMap:
    """Which class, or VOID, the pixels of mask files stand for.

    Colours are single numbers, 0xRRGGBB.
    """

    numbers: dict[int, int]  # of grey and palette pictures: value -> class
    colors: dict[int, int] = field(default_factory=dict)  # of RGB pictures: colour -> class
    palettes_are_colors: bool = False  # palette pictures are read by their colours, not by their numbers

    @classmethod
    def plain(cls, palette: tuple) -> "LabelMap":
        """Return VOC's: numbers are classes and 255 is void; colours are those of `palette`, and VOID_COLOR."""
        numbers = {index: index for index in [*range(len(palette)), VOID]}
        colors = {color_number(color): index for index, color in enumerate(palette)}
        return cls(numbers, {color_number(VOID_COLOR): VOID, **colors})

    def classes_of(self, codes: np.ndarray, are_colors: bool) -> np.ndarray:
        """Return the classes (H, W) uint8 of `codes` (H, W), numbers or colours that are all known."""
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
    """Return the colours of VOC's classes: the bits of the class number, dealt out to red, green and blue."""

    def channel(index: int, offset: int) -> int:
        return sum((index >> 3 * bit + offset & 1) << 7 - bit for bit in range(3))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(count))


def colorize(mask: np.ndarray, palette: tuple) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 of a mask (H, W) of class numbers and VOID."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(palette)] = palette
    colors[VOID] = VOID_COLOR
    return colors[mask]
