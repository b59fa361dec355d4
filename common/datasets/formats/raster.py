"""Draw the outlines and areas of objects onto a mask."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from common.datasets.reading import Problem

EMPTY = "objects that cover no pixel: lines, points, polygons of two points or outside the image"

Corners = tuple[tuple[int, int], ...]  # (x, y) in pixels
Region = tuple[int, Corners]  # class and outline


class Shape(NamedTuple):
    """An object in an image."""

    number: int  # the class
    place: str  # the file and object, for messages
    outlines: Sequence[np.ndarray] = ()  # the corners (n, 2) of each outline
    inside: np.ndarray | None = None  # pixels (H, W) bool, instead of outlines


def smaller_last(shapes: Iterable[Shape]) -> list[Shape]:
    """Sort `shapes` from large to small: drawn in this order, the small ones stay visible."""

    def size(shape: Shape) -> float:
        return sum(map(area, shape.outlines)) if shape.inside is None else np.count_nonzero(shape.inside)

    return sorted(shapes, key=lambda shape: -size(shape))


def draw_objects(objects: list[tuple], shape_of: Callable, order: Callable, mask: np.ndarray) -> list[Problem]:
    """Draw objects, given as (class, object, place), in the `order` of their shapes, as `draw_shapes` does."""
    return draw_shapes(order([shape_of(*found, mask.shape) for found in objects]), mask)


def draw_shapes(shapes: Iterable[Shape], mask: np.ndarray) -> list[Problem]:
    """Draw `shapes` onto `mask` (H, W) in their order; return a problem for each shape that covers no pixel."""
    problems = []
    for number, place, outlines, inside in shapes:
        if inside is not None:
            mask[inside] = number
        if not (fill(mask, outlines, number) if inside is None else inside.any()):
            problems.append(Problem(EMPTY, place))
    return problems


def fill(mask: np.ndarray, outlines: list[np.ndarray], value: int) -> bool:
    """Set each pixel of `mask` (H, W) to `value` if its centre lies in one of `outlines`; return whether any does.

    If an outline crosses itself, the even-odd rule decides. Parts outside of the image are cut off.

    Args:
        outlines: the corners (n, 2) of each outline, x before y. The first pixel reaches from 0 to 1.
    """
    (height, width), pixels, filled = mask.shape, mask.reshape(-1), False
    for corners in outlines:
        corners = np.asarray(corners, dtype=float).reshape(-1, 2) - 0.5
        (x, y), (x2, y2) = corners.T, np.concatenate([corners[1:], corners[:1]]).T
        ends = np.clip(np.ceil([y, y2]), 0, height).astype(int)
        top, counts = ends.min(axis=0), abs(ends[1] - ends[0])  # the rows that a line crosses at their centres
        line = np.repeat(np.arange(len(x)), counts)
        row = np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts - top, counts)
        column = np.ceil(x[line] + (row - y[line]) * ((x2 - x)[line] / (y2 - y)[line]))
        places = np.sort(row * width + np.clip(column, 0, width).astype(int)).tolist()
        for start, end in zip(places[::2], places[1::2], strict=True):
            pixels[start:end] = value
        filled |= places[::2] != places[1::2]
    return filled


def area(corners: np.ndarray) -> float:
    """Return the area inside the corners (n, 2), in pixels."""
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
    """Return the corners (4, 2) of the rectangle between two opposite corners."""
    return np.array([(x, y), (x2, y), (x2, y2), (x, y2)])


def rasterize(regions: Sequence[Region], size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) uint8 of `regions`, drawn in their order and clipped at the image's edges.

    Args:
        regions: class and corners of each region. A corner is a pixel and belongs to the region.
        size: width and height, in Pillow's order.
    """
    mask = Image.new("L", size, 0)
    for kind, corners in regions:
        ImageDraw.Draw(mask).polygon(corners, fill=kind)
    return np.asarray(mask)
