"""Any number of images through a model, a few at a time in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.datasets.reading import FORMATS, check_size, read_image, read_mask, reading
from common.errors import UserError
from common.inference import classes_at, classes_by_tiles, look, resized
from common.labels import LabelMap
from common.run import Run

LARGE = 1 << 25  # pixels of an image that is in memory alone
AHEAD = 4  # images that are read before they are needed, looked at together, and written at the same time


@dataclass
class Item:
    """An image on its way through."""

    name: str  # its path below the folder that is looked at, without suffix
    path: Path
    written: str  # name of what is written
    truth: Path | None = None  # its true mask
    image: Image.Image | None = None
    pixels: np.ndarray | None = None  # (H, W, 3) uint8, as the network sees it
    target: np.ndarray | None = None  # (H, W) uint8, at the image's own size
    problem: str = ""  # why it could not be read


def read(item: Item, size: tuple[int, int] | None, label_map: LabelMap, skip: bool) -> Item:
    """Return a copy of `item` with all that is needed to look at it; the item itself stays small.

    Args:
        size: height and width that the network sees; None is the image's own.
        label_map: of the true masks.
        skip: of an image that cannot be read say why, instead of raising UserError.
    """
    try:
        image = read_image(item.path)
    except UserError as error:
        if not skip:
            raise
        return replace(item, problem=str(error))
    target = read_mask(item.truth, label_map) if item.truth else None
    if item.truth:
        check_size(image, target, item.path, item.truth)
    return replace(item, image=image, pixels=resized(image, size or image.size[::-1]), target=target)


def is_large(image: Image.Image) -> bool:
    """Return whether several of such images at a time may not fit into memory."""
    return image.width * image.height > LARGE


def claims_to_be_large(path: Path) -> bool:
    """Return what `is_large` will say of the image at `path`, by its first bytes."""
    try:
        with reading(path), Image.open(path, formats=FORMATS) as image:
            return is_large(image)
    except UserError:
        return False  # `read` will say what is wrong with it


def ahead(pool: ThreadPoolExecutor, function: Callable, items: Iterable[Item]) -> Iterator:
    """Yield what `function` returns for each of `items`, in order; a few that are not large before they are due."""
    waiting = deque()
    for item in items:
        alone = any(claims_to_be_large(path) for path in (item.path, item.truth) if path)
        while waiting and (alone or len(waiting) > AHEAD):
            yield waiting.popleft().result()
        if alone:
            yield function(item)
        else:
            waiting.append(pool.submit(function, item))
    while waiting:
        yield waiting.popleft().result()


def predicted(
    model: torch.nn.Module, items: Iterable[Item], most: int, tta: bool, run: Run
) -> Iterator[tuple[Item, np.ndarray | None]]:
    """Yield each item with its classes (H, W) uint8 at its own size; several of one size are looked at together."""
    batch = []
    for item in items:
        if item.problem:
            yield item, None
            continue
        if batch and not fits(batch, item, most):
            yield from of_one_size(model, batch, tta, run)
            batch = []
        if item.pixels.size // 3 > most:
            seen = Image.fromarray(classes_by_tiles(model, item.pixels, run, most, tta))
            yield item, np.asarray(seen.resize(item.image.size, Image.Resampling.NEAREST))
        else:
            batch.append(item)
            if is_large(item.image):
                yield from of_one_size(model, batch, tta, run)
                batch = []
    yield from of_one_size(model, batch, tta, run)


def fits(batch: list[Item], item: Item, most: int) -> bool:
    """Return whether `item` can be looked at together with `batch`."""
    pixels = (len(batch) + 1) * item.pixels.size // 3
    return len(batch) < AHEAD and pixels <= most and item.pixels.shape == batch[0].pixels.shape


def of_one_size(model: torch.nn.Module, batch: list[Item], tta: bool, run: Run) -> Iterator[tuple[Item, np.ndarray]]:
    """Yield each item of a batch with its classes."""
    if batch:
        logits = look(model.eval(), [item.pixels for item in batch], run, tta)
        for item, one in zip(batch, logits, strict=True):
            yield item, classes_at(one, item.image.size[::-1])
