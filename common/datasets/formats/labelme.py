"""LabelMe: a JSON file of shapes for each image.

As in the examples of its repository (wkentaro/labelme, examples/semantic_segmentation): `shapes`, each with `label`,
`shape_type` and `points`, and `imagePath`, from the JSON file. `imageData` may hold the image itself. A later shape
covers an earlier one, and the labels `_background_` and `__ignore__` are no classes, as in labelme2voc.py there.
"""

import base64
import io
from functools import partial
from pathlib import Path, PureWindowsPath

import numpy as np
from PIL import Image

from common.datasets.formats.labels import Item, Labels
from common.datasets.formats.raster import Shape, draw_shapes, ellipse, rectangle
from common.datasets.formats.source import Source, load_json
from common.datasets.reading import Problem

NAME = "LabelMe"
KEYS = ("shapes", "imagePath")
AREAS = ("polygon", "rectangle", "circle", "oriented_rectangle", "rotation")  # the last is X-AnyLabeling's, of 4 points


def recognise(source: Source) -> str:
    """Return why the export is one of LabelMe, or nothing."""
    return source.has(KEYS)


def read(source: Source) -> Labels:
    """Return what the JSON files say; labels are numbered as they come."""
    labels = Labels(source.images, notes=["where shapes overlap, the later one in the file is on top, as in LabelMe"])
    for file, content in source.objects(KEYS, labels.left_out):
        name, data = str(content["imagePath"]), None
        try:
            image = source.images.find(name, file)
        except Problem as problem:
            if not content.get("imageData"):
                labels.left_out.append(problem)
                continue
            image, data = file.with_suffix(PureWindowsPath(name).suffix), partial(embedded, file)
        places = [f"{file}: shape {number}" for number in range(1, len(content["shapes"]) + 1)]
        shapes = [(labels.number(s.get("label"), at), s, at) for s, at in zip(content["shapes"], places, strict=True)]
        size = (content.get("imageWidth"), content.get("imageHeight"))
        split = source.split(file.parent)
        labels.items.append(Item(image, partial(draw, shapes), split, size if all(size) else None, data))
    return labels


def embedded(file: Path) -> bytes:
    """Return the image that a JSON file holds."""
    return base64.b64decode(load_json(file)["imageData"])


def draw(objects: list[tuple[int, dict, str]], mask: np.ndarray) -> list[Problem]:
    """Draw shapes, each with its class and its place, onto `mask`; return what has been left out."""
    shapes = []
    for number, shape, place in objects:
        kind, points, inside = shape.get("shape_type") or "polygon", np.array(shape["points"], dtype=float), None
        if kind == "mask":
            (x, y), pixels = points[0].astype(int), np.array(Image.open(io.BytesIO(base64.b64decode(shape["mask"]))))
            inside = np.zeros(mask.shape, dtype=bool)
            crop = inside[y : y + len(pixels), x : x + pixels.shape[1]]
            crop[:] = pixels[: len(crop), : crop.shape[1]] > 0
        if kind == "rectangle" and len(points) == 2:
            points = rectangle(*points[0], *points[1])
        if kind == "circle":
            points = ellipse(*points[0], *[np.hypot(*(points[1] - points[0]))] * 2)
        outlines = [points] if kind in AREAS else []
        shapes.append(Shape(number, f"{place} is a {kind} of {len(shape['points'])} points", outlines, inside))
    return draw_shapes(shapes, mask)
