"""LabelMe: a JSON file of shapes for each image.

The examples in its repository (wkentaro/labelme, examples/semantic_segmentation) have `imagePath`, relative to the JSON
file, and `shapes` with `label`, `shape_type` and `points`. `imageData` may hold the image itself. As in labelme2voc.py,
a later shape covers an earlier one, and the labels `_background_` and `__ignore__` are no classes.
"""

import base64
import io
from functools import partial
from pathlib import Path, PureWindowsPath

import numpy as np
from PIL import Image

from common.datasets.formats.labels import Item, Labels
from common.datasets.formats.raster import Shape, draw_objects, ellipse, rectangle
from common.datasets.formats.source import Source, load_json
from common.datasets.reading import Problem

NAME = "LabelMe"
KEYS = ("shapes", "imagePath")
AREAS = (
    "polygon",
    "rectangle",
    "circle",
    "oriented_rectangle",
    "rotation",
)  # X-AnyLabeling writes the last, with 4 points


def recognise(source: Source) -> str:
    """Return the evidence for LabelMe, or ""."""
    return source.has(KEYS)


def read(source: Source) -> Labels:
    """Return the labels in the JSON files. The classes keep the order of the files."""
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
        labels.items.append(
            Item(image, partial(draw_objects, shapes, shape_of, list), split, size if all(size) else None, data)
        )
    return labels


def embedded(file: Path) -> bytes:
    """Return the image inside a JSON file."""
    return base64.b64decode(load_json(file)["imageData"])


def shape_of(number: int, content: dict, place: str, size: tuple[int, int]) -> Shape:
    """Return the shape with this `content`, in an image of `size` (H, W)."""
    kind, points = content.get("shape_type") or "polygon", np.array(content["points"], dtype=float)
    place = f"{place} is a {kind} of {len(points)} points"
    if kind == "mask":
        (x, y), pixels = points[0].astype(int), np.array(Image.open(io.BytesIO(base64.b64decode(content["mask"]))))
        inside = np.zeros(size, dtype=bool)
        crop = inside[y : y + len(pixels), x : x + pixels.shape[1]]
        crop[:] = pixels[: len(crop), : crop.shape[1]] > 0
        return Shape(number, place, inside=inside)
    if kind == "rectangle" and len(points) == 2:
        points = rectangle(*points[0], *points[1])
    if kind == "circle":
        points = ellipse(*points[0], *[np.hypot(*(points[1] - points[0]))] * 2)
    return Shape(number, place, [points] if kind in AREAS else [])
