"""Outlines become pixels."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from common.datasets.reading import Problem

EMPTY = "objects that cover no pixel: lines, points, polygons of two points or outside the image"

Corners = tuple[tuple[int, int], ...]  # (x, y) in pixels
Region = tuple[int, Corners]  # class and outline


class Shape(NamedTuple):
    """An object in an image."""

    number: int  # of its class
    place: str  # in the label files
    outlines: Sequence[np.ndarray] = ()  # corners (n, 2) of each
    inside: np.ndarray | None = None  # its pixels (H, W) bool, in place of outlines


def smaller_last(shapes: Iterable[Shape]) -> list[Shape]:
    """Return `shapes` in the order in which smaller ones are drawn over larger ones."""

    def size(shape: Shape) -> float:
        return sum(map(area, shape.outlines)) if shape.inside is None else np.count_nonzero(shape.inside)

    return sorted(shapes, key=lambda shape: -size(shape))


def draw_shapes(shapes: Iterable[Shape], mask: np.ndarray) -> list[Problem]:
    """Draw `shapes` onto `mask` (H, W), each over the ones before it; return those that cover no pixel."""
    problems = []
    for number, place, outlines, inside in shapes:
        if inside is not None:
            mask[inside] = number
        if not (fill(mask, outlines, number) if inside is None else inside.any()):
            problems.append(Problem(EMPTY, place))
    return problems


def fill(mask: np.ndarray, outlines: list[np.ndarray], value: int) -> bool:
    """Set the pixels of `mask` (H, W) whose centres lie in one of `outlines` to `value`; return whether there are any.

    Where an outline crosses itself, an odd number of its lines encloses what is inside. What lies beyond the image is
    cut off.

    Args:
        outlines: the corners (n, 2) of each, x before y, in pixels from the left and upper edge of the image: the first
            pixel reaches from 0 to 1.
    """
    (height, width), pixels, filled = mask.shape, mask.reshape(-1), False
    for corners in outlines:
        corners = np.asarray(corners, dtype=float).reshape(-1, 2) - 0.5
        (x, y), (x2, y2) = corners.T, np.concatenate([corners[1:], corners[:1]]).T
        ends = np.clip(np.ceil([y, y2]), 0, height).astype(int)
        top, counts = ends.min(axis=0), abs(ends[1] - ends[0])  # of the rows whose centres a line crosses
        line = np.repeat(np.arange(len(x)), counts)
        row = np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts - top, counts)
        column = np.ceil(x[line] + (row - y[line]) * ((x2 - x)[line] / (y2 - y)[line]))
        places = np.sort(row * width + np.clip(column, 0, width).astype(int)).tolist()
        for start, end in zip(places[::2], places[1::2], strict=True):
            pixels[start:end] = value
        filled |= places[::2] != places[1::2]
    return filled


def area(corners: np.ndarray) -> float:
    """Return the area that the corners (n, 2) enclose, in pixels."""
    x, y = np.asarray(corners, dtype=float).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def ellipse(x: float, y: float, x_radius: float, y_radius: float, degrees: float = 0) -> np.ndarray:
    """Return the corners (72, 2) of an ellipse around (x, y), turned clockwise."""
    turns = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    corners = np.stack([x + x_radius * np.cos(turns), y + y_radius * np.sin(turns)], axis=1)
    return turned(corners, (x, y), degrees)


def turned(corners: np.ndarray, centre: Sequence[float], degrees: float) -> np.ndarray:
    """Return `corners` (n, 2) turned clockwise around `centre`."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (corners - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre


def rectangle(x: float, y: float, x2: float, y2: float) -> np.ndarray:
    """Return the corners (4, 2) of the rectangle with these two opposite ones."""
    return np.array([(x, y), (x2, y), (x2, y2), (x, y2)])


def rasterize(regions: Sequence[Region], size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) uint8 of `regions`, each over the ones before it, clipped at the image's edges.

    Args:
        regions: class and corners of each; a corner is a pixel, and belongs to the region.
        size: width and height of the image, as Pillow has it.
    """
    mask = Image.new("L", size, 0)
    for kind, corners in regions:
        ImageDraw.Draw(mask).polygon(corners, fill=kind)
    return np.asarray(mask)
