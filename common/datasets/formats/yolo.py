"""YOLO's polygons: a text file of labels for each image, and the classes in data.yaml.

By Ultralytics (docs.ultralytics.com/datasets/segment), a line is `class x1 y1 x2 y2 ...`, as fractions of width and
height. A line with four numbers behind the class is a box. Images lie in folders `images` and their text files in
folders `labels`, or both in one folder. An empty text file belongs to an image without objects.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np

from common.datasets.formats.data_yaml import read_yaml, splits
from common.datasets.formats.labels import UNLABELLED, Item, Labels
from common.datasets.formats.raster import Shape, draw_objects, rectangle, smaller_last
from common.datasets.formats.source import Source
from common.datasets.reading import Problem, name_below, read_text
from common.labels import VOID

NAME = "YOLO's polygons"
LINE = re.compile(r"\s*\d+(\s+-?\d*\.?\d+(e-?\d+)?){4}(\s+-?\d*\.?\d+(e-?\d+)?)*\s*", re.IGNORECASE)


def recognise(source: Source) -> str:
    """Return the evidence for YOLO's polygons, or ""."""
    for file in texts(source):
        if first := next(filter(str.strip, file.read_text("utf-8", "replace").splitlines()), ""):
            return f"{source.name(file)} has lines of a class and corners" if LINE.fullmatch(first) else ""
    return ""


def texts(source: Source) -> list[Path]:
    """Return the text files that lie beside images or in a folder `labels`."""
    files = [file for file in source.others if file.suffix.lower() == ".txt" and file.name != "classes.txt"]
    named = {image.with_suffix("") for image in source.pictures} if files else ()
    return [file for file in files if "labels" in file.parts[:-1] or file.with_suffix("") in named]


def read(source: Source) -> Labels:
    """Return the labels in the text files."""
    labels = Labels(source.images, notes=["where objects overlap, the smaller one is on top: YOLO has no order"])
    contents = [read_yaml(file) for file in source.others if file.suffix.lower() in (".yaml", ".yml")]
    content = next((content for content in contents if "names" in content), {})
    numbers = [labels.number(name, "data.yaml") for name in content.get("names", ())]
    if not numbers:
        labels.notes.append("no data.yaml names the classes: their names can be edited in classes.txt")
    splits_of = splits(content, source)
    for file in texts(source):
        try:
            image = source.images.find(name_below(source.root, file), file)
        except Problem as problem:
            labels.left_out.append(problem)
            continue
        paint = partial(draw_objects, [*objects(file, numbers, labels)], shape_of, smaller_last)
        labels.items += [Item(image, paint, split) for split in splits_of(image)]
    return labels


def objects(file: Path, numbers: list[int], labels: Labels):
    """Yield (class, corners, place) of each object in a text file."""
    for i, line in enumerate(read_text(file).splitlines(), start=1):
        (key, *corners), place = line.split() or [""], f"{file}, line {i}"
        if line.strip() and (not LINE.fullmatch(line) or len(corners) % 2):
            labels.left_out.append(Problem("lines that are no class and pairs of numbers", place))
        elif line.strip():
            if numbers and int(key) >= len(numbers):
                labels.left_out.append(Problem(UNLABELLED, f"{place} has the class {key}; {len(numbers)} are named"))
            labels.count(len(corners) == 4, place)
            named = dict(enumerate(numbers)) if numbers else {int(key): labels.number(f"class {key}", place)}
            yield named.get(int(key), VOID), np.array(corners, dtype=float).reshape(-1, 2), place


def shape_of(number: int, corners: np.ndarray, place: str, size: tuple[int, int]) -> Shape:
    """Return the shape of an object, in an image of `size` (H, W)."""
    if len(corners) == 2:  # centre and size of a box
        number, corners = VOID, rectangle(*(corners[0] - corners[1] / 2), *(corners[0] + corners[1] / 2))
    return Shape(number, place, [corners * size[::-1]])
