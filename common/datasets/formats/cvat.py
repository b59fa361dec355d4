"""CVAT's own XML, "CVAT for images 1.1": one file, annotations.xml, lists the shapes of each image.

CVAT's manual (docs.cvat.ai, formats "CVAT") lists the elements `polygon`, `ellipse`, `box` and `mask`. The `rle` of a
mask has the lengths of runs of zeros and ones in turn, along the rows of the rectangle `left`, `top`, `width` and
`height`. A shape of higher `z_order` covers the others. With equal `z_order`, the later shape is on top.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from common.datasets.formats.labels import Labels
from common.datasets.formats.raster import Shape, draw_objects, ellipse, rectangle, turned
from common.datasets.formats.rle import spread
from common.datasets.formats.source import Source
from common.datasets.reading import Problem
from common.labels import VOID

NAME = "CVAT's XML"


def recognise(source: Source) -> str:
    """Return the evidence for CVAT's XML, or ""."""
    return next((f"{source.name(file)} has images and their shapes" for file, _ in files(source, [])), "")


def files(source: Source, problems: list[Problem]) -> Iterator[tuple[Path, ElementTree.Element]]:
    """Yield CVAT's XML files and their content; add a problem for each damaged file."""
    for file in source.others:
        if file.suffix.lower() == ".xml":
            try:
                root = ElementTree.parse(file).getroot()
            except ElementTree.ParseError as error:
                problems.append(Problem("files that cannot be read", f"{file} is no XML ({error}); export it again"))
                continue
            if root.tag == "annotations" and root.find("image") is not None:
                yield file, root


def read(source: Source) -> Labels:
    """Return the labels in the XML files."""
    labels = Labels(source.images, notes=["where shapes overlap, the upper one in CVAT is on top"])
    for file, root in files(source, labels.left_out):
        for label in root.iterfind(".//labels/label"):
            name, color = label.findtext("name"), label.findtext("color") or ""
            number = labels.number(name, f"{file}: label {name}")
            if len(color) == 7 and number != VOID:
                labels.colors[number] = tuple(bytes.fromhex(color[1:]))
        for image in root.iterfind("image"):
            name, shapes = image.get("name"), []
            for i, shape in enumerate(image, start=1):
                place = f"{file}: shape {i} of {name}, a {shape.tag}"
                if shape.tag != "tag":  # a tag belongs to the whole image
                    labels.count(shape.tag == "box", place)
                    shapes.append((labels.number(shape.get("label"), place), shape, place))
            shapes.sort(key=lambda shape: int(shape[1].get("z_order", 0)))
            split = source.split(Path(image.get("subset", "")), Path(name).parent, file)
            size = (int(image.get("width")), int(image.get("height")))
            labels.add(name, file, partial(draw_objects, shapes, shape_of, list), split, size)
    return labels


def shape_of(number: int, element: ElementTree.Element, place: str, size: tuple[int, int]) -> Shape:
    """Return the shape that an element describes, in an image of `size` (H, W)."""
    value = element.get
    if element.tag == "polygon":
        corners = np.array([corner.split(",") for corner in value("points").split(";")], dtype=float)
        return Shape(number, place, [corners])
    if element.tag == "box":
        corners = rectangle(*(float(value(key)) for key in ("xtl", "ytl", "xbr", "ybr")))
        return Shape(VOID, place, [turned(corners, corners.mean(axis=0), float(value("rotation", 0)))])
    if element.tag == "ellipse":
        return Shape(number, place, [ellipse(*(float(value(key, 0)) for key in ("cx", "cy", "rx", "ry", "rotation")))])
    if element.tag == "mask":
        left, top, width, height = (int(value(key)) for key in ("left", "top", "width", "height"))
        runs, inside = [int(run) for run in value("rle").split(",")], np.zeros(size, dtype=bool)
        inside[top : top + height, left : left + width] = spread(runs).reshape(height, width)
        return Shape(number, place, inside=inside)
    return Shape(number, place)  # lines and points cover no pixel
