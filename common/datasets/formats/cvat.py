"""CVAT's own XML, "CVAT for images 1.1": shapes of each image in one file, annotations.xml.

CVAT's manual (docs.cvat.ai, formats "CVAT") lists the elements: `polygon`, `ellipse`, `box` and `mask`, whose `rle` has
the lengths of runs of zeros and of ones in turn, along the rows of the rectangle that `left`, `top`, `width` and
`height` give. Shapes of a higher `z_order` lie over the others, and then later ones over earlier ones.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from common.datasets.formats.labels import BOXES, Labels
from common.datasets.formats.raster import Shape, draw_shapes, ellipse, rectangle, turned
from common.datasets.formats.rle import spread
from common.datasets.formats.source import Source
from common.datasets.reading import Problem
from common.labels import VOID

NAME = "CVAT's XML"


def recognise(source: Source) -> str:
    """Return why the export is one of CVAT, or nothing."""
    return next((f"{source.name(file)} has images and their shapes" for file, _ in files(source, [])), "")


def files(source: Source, problems: list[Problem]) -> Iterator[tuple[Path, ElementTree.Element]]:
    """Yield the XML files of CVAT and their contents; damaged ones are added to `problems`."""
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
    """Return what the XML files say."""
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
                if shape.tag == "box":
                    labels.left_out.append(Problem(BOXES, place))
                if shape.tag != "tag":  # of the whole image
                    labels.outlined[shape.tag != "box"] += 1
                    shapes.append((labels.number(shape.get("label"), place), shape, place))
            shapes.sort(key=lambda shape: int(shape[1].get("z_order", 0)))
            split = source.split(Path(image.get("subset", "")), Path(name).parent, file)
            size = (int(image.get("width")), int(image.get("height")))
            labels.add(name, file, partial(draw, shapes), split, size)
    return labels


def draw(objects: list[tuple[int, ElementTree.Element, str]], mask: np.ndarray) -> list[Problem]:
    """Draw shapes, each with its class and its place, onto `mask`; return what has been left out."""
    shapes = []
    for number, shape, place in objects:
        value, outlines, inside = shape.get, [], None
        if shape.tag == "polygon":
            outlines = [np.array([corner.split(",") for corner in value("points").split(";")], dtype=float)]
        elif shape.tag == "box":
            corners = rectangle(*(float(value(key)) for key in ("xtl", "ytl", "xbr", "ybr")))
            number, outlines = VOID, [turned(corners, corners.mean(axis=0), float(value("rotation", 0)))]
        elif shape.tag == "ellipse":
            cx, cy, rx, ry, degrees = (float(value(key, 0)) for key in ("cx", "cy", "rx", "ry", "rotation"))
            outlines = [ellipse(cx, cy, rx, ry, degrees)]
        elif shape.tag == "mask":
            left, top, width, height = (int(value(key)) for key in ("left", "top", "width", "height"))
            pixels = spread([int(run) for run in value("rle").split(",")]).reshape(height, width)
            inside = np.zeros(mask.shape, dtype=bool)
            inside[top : top + height, left : left + width] = pixels
        shapes.append(Shape(number, place, outlines, inside))
    return draw_shapes(shapes, mask)
