"""Run-length encodings of binary masks: COCO's, which others use, too.

As the COCO API describes it (cocodataset/cocoapi, common/maskApi.h): the lengths of runs of zeros and of ones in turn,
down the columns, as a list or as text. In text a number is split into groups of five bits, lowest first, each a
character from "0" on; the sixth bit says that there are more. From the fourth number on it is the difference to the
last but one.
"""

import numpy as np


def decode(encoding: dict, size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) bool of `size`, height and width.

    Raises:
        ValueError: it has another size, or the runs do not fill it.
    """
    counts, (height, width) = encoding["counts"], encoding["size"]
    runs = read_text(counts) if isinstance(counts, str) else counts
    if (height, width) != size or sum(runs) != height * width:
        raise ValueError(f"{sum(runs)} pixels in runs for {width}x{height}, and the image has {size[1]}x{size[0]}")
    return spread(runs).reshape(width, height).T


def spread(runs: list[int]) -> np.ndarray:
    """Return the pixels (n,) bool of runs of zeros and of ones in turn."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


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


def unpack(data: list[int]) -> np.ndarray:
    """Return the numbers that Label Studio packs into `data`, bytes.

    A head has the count of numbers in 32 bits, the bits of a number less 1 in 5, and four lengths less 1 in 4 each.
    Then follow runs: 1 bit tells whether one number is repeated, 2 bits which of the lengths the count has, then come
    the count less 1 and the numbers.
    """
    bits, at = "".join(f"{byte:08b}" for byte in data), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    numbers, size, filled = np.zeros(take(32), dtype=int), take(5) + 1, 0
    lengths = [take(4) + 1 for _ in range(4)]
    while filled < len(numbers):
        repeated, count = take(1), take(lengths[take(2)]) + 1
        numbers[filled : filled + count] = take(size) if repeated else [take(size) for _ in range(count)]
        filled += count
    return numbers
