"""COCO JSON, as COCO itself, CVAT, Label Studio, Roboflow and others write it.

As cocodataset.org/#format-data describes it under "Object Detection": `images`, `categories` and `annotations`, whose
`segmentation` is a list of polygons, which belong together, or a run-length encoding. The format has no order of
objects: larger ones are drawn first, so that smaller ones remain. A crowd is void, and every object covers it.
"""

from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from common.datasets.formats.labels import EMPTY, NO_CLASS, Labels
from common.datasets.formats.raster import area, fill, rectangle
from common.datasets.formats.rle import draw_runs, read_runs
from common.datasets.formats.source import Source
from common.datasets.reading import Problem
from common.labels import VOID

NAME = "COCO JSON"
KEYS = ("images", "annotations", "categories")


def recognise(source: Source) -> str:
    """Return why the export is in COCO's format, or nothing."""
    return source.has(KEYS)


def read(source: Source) -> Labels:
    """Return what the JSON files say: those called instances..., as in COCO itself, or all."""
    labels = Labels(source.images, notes=["where objects overlap, the smaller one is on top: COCO has no order"])
    official = any(file.name.startswith("instances") for file in source.others)
    for file, content in source.objects(KEYS, labels.left_out):
        if official and not file.name.startswith("instances"):
            continue
        objects, numbers = defaultdict(list), {}
        for annotation in content["annotations"]:
            objects[annotation["image_id"]].append(annotation)
        used = {annotation.get("category_id") for annotation in content["annotations"]}
        groups = {c.get("supercategory") for c in content["categories"]}  # Roboflow lists the project, too
        for category in sorted(content["categories"], key=lambda category: category["id"]):
            key, name = category["id"], category["name"]
            if key in used or name not in groups or category.get("supercategory") != "none":
                numbers[key] = labels.number(name, f"{file}: category {key}")
        for entry in content["images"]:
            size = (entry.get("width"), entry.get("height"))
            paint = partial(draw, objects.pop(entry["id"], []), numbers, file)
            labels.add(entry["file_name"], file, paint, source.split(file, Path(entry["file_name"]).parent), size)
        for key, found in objects.items():
            sentence = f"{file}: {len(found)} annotations of image {key}"
            labels.left_out.append(Problem("objects of images that are not listed", sentence))
    return labels


def draw(objects: list[dict], numbers: dict[int, int], file: Path, mask: np.ndarray) -> list[Problem]:
    """Draw the objects of an image, `numbers` being the classes of categories; return what has been left out."""
    problems, shapes = [], []
    for item in objects:
        place, crowd, parts = f"{file}: annotation {item.get('id')}", item.get("iscrowd"), item.get("segmentation")
        number = VOID if crowd else numbers.get(item.get("category_id"), VOID)
        if item.get("category_id") not in numbers:
            problems.append(Problem(NO_CLASS, f"{place} has the category {item.get('category_id')}"))
        try:
            if not parts and "bbox" in item:
                x, y, width, height = item["bbox"]
                number, parts = VOID, [rectangle(x, y, x + width, y + height)]
                problems.append(Problem("boxes without an outline, which become void", place))
            if isinstance(parts, dict):
                parts, paint = read_runs(parts, mask.shape), draw_runs
                size = sum(parts[1::2])
            else:
                parts, paint = [np.reshape(part, (-1, 2)) for part in parts or []], fill
                size = sum(map(area, parts))
            shapes.append((not crowd, -size, number, parts, paint, place))
        except (ValueError, LookupError, TypeError) as error:
            problems.append(Problem("objects that cannot be understood", f"{place}: {error}"))
    for _, _, number, parts, paint, place in sorted(shapes, key=lambda shape: shape[:2]):
        if not paint(mask, parts, number):
            problems.append(Problem(EMPTY, place))
    return problems
