"""The files of VIA, the VGG Image Annotator: a project, or annotations exported as JSON or CSV.

VIA 2 lists `regions` of each `filename`, with `shape_attributes` and `region_attributes`
(www.robots.ox.ac.uk/~vgg/software/via; Dutta & Zisserman, The VIA Annotation Software for Images, Audio and Video, ACM
Multimedia 2019).
"""

import csv
import json
from pathlib import Path

from common.datasets.formats.raster import EMPTY, Corners, ellipse, rectangle
from common.datasets.formats.source import load_json
from common.datasets.reading import Problem


def images_of(file: Path) -> list[tuple[str, list[dict]]]:
    """Return the name and the regions of each image in a file of VIA.

    Raises:
        Problem: a JSON file is damaged.
        source.OTHER: the file is not one of VIA's.
    """
    if file.suffix.lower() == ".csv":
        images, shape, attributes = {}, "region_shape_attributes", "region_attributes"
        for row in csv.DictReader(file.read_text(encoding="utf-8-sig").lstrip("#").splitlines()):
            region = {"shape_attributes": json.loads(row[shape]), attributes: json.loads(row[attributes])}
            images.setdefault(row["filename"], []).extend([region] * bool(region["shape_attributes"]))
        return list(images.items())
    content = load_json(file)
    images = [(entry["filename"], entry["regions"]) for entry in content.get("_via_img_metadata", content).values()]
    return [(name, list(r.values()) if isinstance(r, dict) else list(r)) for name, r in images]  # VIA 1 numbers them


def outline(region: dict, place: str) -> Corners:
    """Return the corners of a region in whole pixels; raise Problem, which names `place`, for a line or a point."""
    shape = region["shape_attributes"]
    kind, x, y = shape["name"], shape.get("cx", shape.get("x")), shape.get("cy", shape.get("y"))
    if kind == "polygon":
        points = list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
        if len(points) < 3:
            raise Problem(EMPTY, f"{place} is a polygon with {len(points)} points; it needs at least 3")
    elif kind == "rect":
        points = rectangle(x, y, x + shape["width"], y + shape["height"])
    elif kind == "circle":
        points = ellipse(x, y, shape["r"], shape["r"])
    elif kind == "ellipse":
        points = ellipse(x, y, shape["rx"], shape["ry"], shape.get("theta", 0))
    else:
        raise Problem(EMPTY, f"{place} is a {kind}, which has no area")
    return tuple((round(x), round(y)) for x, y in points)
