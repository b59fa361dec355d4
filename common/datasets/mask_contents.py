"""Collect the values and colours in mask files, and detect smoothed outlines and object numbers.

A colour is one number here, 0xRRGGBB.
"""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common.datasets.cache import fingerprint
from common.datasets.reading import Problem, count_codes, open_image, read_codes
from common.labels import VOID, color_number, rgb
from common.system.files import read_json, write_json

GREY = 0x010101  # v * GREY is the colour (v, v, v)
SAMPLE = 50  # number of masks that `object_numbers` reads


class Held(NamedTuple):
    """A value or colour that the masks hold."""

    color: int  # v * GREY for the value v of a grey mask
    value: int | None  # only for palette masks
    pixels: int  # number in all masks
    file: str  # the first mask with this value or colour


class Masks(NamedTuple):
    """The contents of all masks of a data set."""

    held: list[Held]
    unread: list[Problem]  # masks that cannot be read
    objects: str  # a warning if the numbers look like objects, else ""


def scan(masks: list[tuple[str, Path]], cache_dir: Path, progress: bool) -> Masks:
    """Read all masks, given by name and path, and keep the result in `cache_dir` for the next call."""
    record = cache_dir / f"masks-{fingerprint(masks)}.json"
    if not (known := read_json(record)):
        found = look_through([path for _, path in masks], progress)
        unread = [(problem.kind, str(problem)) for problem in found.unread]
        own = record.with_suffix(f".{os.getpid()}")  # runs that start together write the same record
        write_json(own, known := found._replace(unread=unread)._asdict())
        os.replace(own, record)
    return Masks([Held(*row) for row in known["held"]], [Problem(*row) for row in known["unread"]], known["objects"])


def look_through(masks: list[Path], progress: bool) -> Masks:
    """Read all masks and return their contents."""
    found, unread, bar = {}, [], {"total": len(masks), "leave": False, "disable": None if progress else True}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, counts in tqdm(zip(masks, pool.map(_look, masks), strict=True), "looking at masks", **bar):
            if isinstance(counts, Problem):
                unread.append(counts)
                continue
            for key, pixels in counts.items():
                found.setdefault(key, [0, str(path)])[0] += pixels
    return Masks([Held(*key, *rest) for key, rest in found.items()], unread, object_numbers(masks))


def _look(path: Path) -> dict[tuple[int, int | None], int] | Problem:
    """Count the pixels of each colour and value in a mask; at most 1000 colours, in case it is a photograph."""
    try:
        image = open_image(path)
        codes, are_colors = read_codes(image, path)
    except Problem as problem:
        return problem
    counts = list(count_codes(codes).items())[:1000]
    if image.mode == "P":
        palette = [*image.getpalette("RGB"), *[0] * 768]
        return {(color_number(palette[3 * v : 3 * v + 3]), v): pixels for v, pixels in counts}
    return {(code if are_colors else code * GREY, None): pixels for code, pixels in counts}


def smoothed(held: list[Held]) -> tuple[int, int] | None:
    """Return the two original colours of smoothed masks, the more frequent first; None for masks that are not smoothed.

    In smoothed masks, all other colours are mixtures of these two. After resizing, the two have 80 % of the pixels, and
    no mixture has half as many as either. After blurring, more than 30 rare mixtures fill the whole range between two
    very distant colours.
    """
    pixels = Counter()
    for h in held:
        if h.value not in (None, h.color & 255):  # a colour palette: its values are most likely classes
            return None
        pixels[h.color] += h.pixels
    if len(pixels) < 4:
        return None
    codes, counts = zip(*pixels.most_common(), strict=True)
    colors = np.array([rgb(code) for code in codes])
    far = abs(colors - colors[0]).max(axis=1)
    end, total = far.argmax(), pixels.total()
    a, b = colors[0], colors[end]
    shares = (colors - a) @ (b - a) / np.sum((b - a) ** 2)  # share of b in each mixture
    rare = counts[0] > 0.3 * total and counts[1 + (end == 1)] < 0.03 * total
    resized = far[end] >= 100 and counts[0] + counts[end] >= 0.8 * total and counts[1 + (end == 1)] < counts[end] / 2
    blurred = far[end] >= 190 and len(counts) > 30 and rare and np.diff(np.sort(shares)).max() < 0.3
    mixtures = abs(colors - a - shares[:, None] * (b - a)).max() < 16
    return (codes[0], codes[end]) if mixtures and (resized or blurred) else None


def object_numbers(masks: list[Path]) -> str:
    """Return a warning if the numbers in a sample of the masks look like objects, not classes; else "".

    They look so if each mask holds 0, 1, 2, ... without a gap, masks hold differently many numbers, one mask holds at
    least four, and 80 % of the numbers above 0 are one connected region.
    """
    counts, single = [], []
    for file in masks[:: -(-len(masks) // SAMPLE) or 1]:
        try:
            codes, are_colors = read_codes(open_image(file), file)
        except Problem:
            continue
        numbers = [code for code in count_codes(codes) if code != VOID]
        if are_colors or numbers != [*range(len(numbers))]:
            return ""
        counts.append(len(numbers) - 1)
        step = -(-max(codes.shape) // 128)
        single += one_region_each(codes[::step, ::step])
    if len({*counts} - {0}) < 2 or max(counts) < 3 or sum(single) < 0.8 * len(single):
        return ""
    return (
        f"the numbers in the masks look like objects, not classes: each mask counts its regions, 1, 2, ..., "
        f"and has up to {max(counts)}"
    )


def one_region_each(codes: np.ndarray) -> list[bool]:
    """Return, for each number in `codes` (H, W) except 0 and 255, whether 90 % of its pixels are one region."""
    numbers = [number for number in count_codes(codes) if number not in (0, VOID)]
    reached = np.zeros(codes.shape, dtype=bool)
    for number in numbers:
        places = np.flatnonzero(codes == number)
        reached.flat[places[len(places) // 2]] = True
    before = -1
    while before != (before := np.count_nonzero(reached)):  # regions grow by a pixel to each side until none changes
        for side, codes_side in ((reached, codes), (reached.T, codes.T)):
            same = codes_side[1:] == codes_side[:-1]
            side[1:] |= side[:-1] & same
            side[:-1] |= side[1:] & same
    return [np.mean(reached[codes == number]) >= 0.9 for number in numbers]
