"""Run lengths in a table, as in Kaggle's competitions: a row for each object, or for each class of an image.

The column EncodedPixels has pairs of start and length. They count the pixels from 1, down the columns (Airbus ship
detection, Severstal steel, clouds). Another column names the image, perhaps with its class behind `_`. The class may
also have a column of its own. A row without runs has no object.
"""

import csv
from collections import defaultdict
from functools import partial

import numpy as np

from common.datasets.formats.labels import Labels
from common.datasets.formats.raster import Shape, draw_objects, smaller_last
from common.datasets.formats.source import Source
from common.datasets.reading import Problem

NAME = "run lengths in a table"
RUNS = "encodedpixels"


def recognise(source: Source) -> str:
    """Return the evidence for run lengths, or ""."""
    return next((f"{source.name(file)} has the column EncodedPixels" for file, _ in tables(source)), "")


def tables(source: Source):
    """Yield the CSV files with run lengths, and their rows as dicts by lower-case column names."""
    for file in source.others:
        if file.suffix.lower() == ".csv":
            with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
                first, *rows = [*csv.reader(lines)] or [[]]
            columns = [column.strip().casefold() for column in first]
            if RUNS in columns:
                yield file, [dict(zip(columns, row, strict=False)) for row in rows if row]


def read(source: Source) -> Labels:
    """Return the labels in the tables."""
    labels = Labels(source.images, notes=["runs are read down the columns, as in Kaggle's; look at the overlays"])
    for file, rows in tables(source):
        images = defaultdict(list)
        image, *others = [column for column in rows[0] if column != RUNS]
        classes = [column for column in others if "class" in column or "label" in column]
        for i, row in enumerate(rows, start=2):
            name, runs, label = row[image].strip(), row[RUNS].split(), row[classes[0]] if classes else "object"
            if image.endswith(("_classid", "_label")):
                name, _, label = name.rpartition("_")
            label = f"class {label}" if label.isdecimal() else label
            images[name] += [(labels.number(label, f"{file}, line {i}"), runs, f"{file}, line {i}")] * (len(runs) > 1)
        for name, objects in images.items():
            labels.add(name, file, partial(draw_objects, objects, shape_of, smaller_last), source.split(file))
    return labels


def shape_of(number: int, runs: list[str], place: str, size: tuple[int, int]) -> Shape:
    """Return the shape of an object, in an image of `size` (H, W); raise Problem if runs overlap or leave the image."""
    pixels = size[0] * size[1]
    starts, ends = np.array(runs[::2], dtype=int) - 1, np.array(runs[1::2], dtype=int)
    ends += starts
    if (starts < 0).any() or (starts[1:] < ends[:-1]).any() or ends[-1] > pixels:
        raise Problem("runs that do not count the pixels of the image from 1", place)
    steps = np.zeros(pixels + 1, dtype=int)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return Shape(number, place, inside=np.cumsum(steps[:-1]).reshape(size[::-1]).T > 0)
