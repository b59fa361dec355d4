"""COCO's run-length encoding of binary masks.

As the COCO API describes it (cocodataset/cocoapi, common/maskApi.h): the lengths of runs of zeros and of ones in turn,
down the columns, as a list or as text. In text a number is split into groups of five bits, lowest first, each a
character from "0" on; the sixth bit says that there are more. From the fourth number on it is the difference to the
last but one.
"""

import numpy as np


def read_runs(encoding: dict, size: tuple[int, int]) -> list[int]:
    """Return the lengths of the runs of a mask of `size`, height and width.

    Raises:
        ValueError: it has another size, or the runs do not fill it.
    """
    counts = encoding["counts"]
    runs = read_text(counts) if isinstance(counts, str) else counts
    height, width = encoding["size"]
    if (height, width) != size or sum(runs) != height * width:
        raise ValueError(f"{sum(runs)} pixels in runs for {width}x{height}, and the image has {size[1]}x{size[0]}")
    return runs


def read_text(text: str) -> list[int]:
    """Return the numbers in a text."""
    numbers, value, shift = [], 0, 0
    for code in text.encode():
        code -= 48
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:  # a negative number
            value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value = shift = 0
    return numbers


def draw_runs(mask: np.ndarray, runs: list[int], value: int) -> bool:
    """Set the pixels of `mask` (H, W) that are ones to `value`; return whether there are any."""
    ends, pixels = np.cumsum(runs).tolist(), np.zeros(mask.size, dtype=bool)
    for start, end in zip(ends[::2], ends[1::2], strict=False):
        pixels[start:end] = True
    mask[pixels.reshape(mask.shape[::-1]).T] = value
    return bool(pixels.any())
