"""Run-length encodings of binary masks, by COCO and by Label Studio.

COCO's encoding (cocodataset/cocoapi, common/maskApi.h) has the lengths of runs of zeros and ones in turn, down the
columns, as a list or as text. Text splits a number into groups of five bits, lowest first. Each group is a character
from "0" on; its sixth bit is set if more groups follow. The fourth and all later numbers are differences to the number
two places before.
"""

import numpy as np


def decode(encoding: dict, size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) bool; raise ValueError unless it has `size` (H, W) and the runs fill it."""
    counts, (height, width) = encoding["counts"], encoding["size"]
    runs = read_text(counts) if isinstance(counts, str) else counts
    if (height, width) != size or sum(runs) != height * width:
        raise ValueError(f"{sum(runs)} pixels in runs for {width}x{height}, and the image has {size[1]}x{size[0]}")
    return spread(runs).reshape(width, height).T


def spread(runs: list[int]) -> np.ndarray:
    """Return the pixels (n,) bool of runs of zeros and ones in turn."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def read_text(text: str) -> list[int]:
    """Return the run lengths in COCO's text."""
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
    """Return the numbers in `data`, the bytes of a brush label of Label Studio.

    The head holds the count of numbers (32 bits), the size of a number less 1 (5 bits), and four lengths less 1 (4 bits
    each). Runs follow. Each has a flag for one repeated number (1 bit), the index of a length (2 bits), the count less
    1 (as many bits as this length), and the numbers.
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
