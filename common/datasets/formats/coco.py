"""COCO JSON, which COCO itself, CVAT, Label Studio, Roboflow and others write.

cocodataset.org/#format-data describes it under "Object Detection": `images`, `categories` and `annotations`. The
`segmentation` of an annotation is a list of polygons or a run-length encoding. The format has no order of objects:
smaller objects cover larger ones. A crowd is void, and every object covers it.
"""

import re
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from common.datasets.formats.labels import UNLABELLED, Labels
from common.datasets.formats.raster import Shape, draw_shapes, rectangle, smaller_last
from common.datasets.formats.rle import decode
from common.datasets.formats.source import Source
from common.datasets.reading import Problem
from common.labels import VOID

NAME = "COCO JSON"
KEYS = ("images", "annotations", "categories")
OTHER_TASKS = re.compile("keypoints|captions|panoptic|image_info")  # in the names of COCO's own files


def recognise(source: Source) -> str:
    """Return the evidence for COCO JSON, or ""."""
    return source.has(KEYS)


def read(source: Source) -> Labels:
    """Return the labels in all JSON files. Skip files of COCO's other tasks if there are files `instances_...`."""
    labels = Labels(source.images, notes=["where objects overlap, the smaller one is on top: COCO has no order"])
    listed = {}  # (name of the image, folder of the file, split) -> file, size and objects
    official = any("instances" in file.name for file in source.others)
    for file, content in source.objects(KEYS, labels.left_out):
        if official and OTHER_TASKS.search(file.name):
            labels.left_out.append(Problem("files of other tasks, which are not read", str(file)))
            continue
        numbers, objects = categories(labels, content, file), defaultdict(list)
        for item in content["annotations"]:
            place, category = f"{file}: annotation {item.get('id')}", item.get("category_id")
            if category not in numbers:
                labels.left_out.append(Problem(UNLABELLED, f"{place} has the category {category}"))
            is_box = "bbox" in item and not item.get("segmentation")
            labels.count(is_box, place)
            number = VOID if is_box or item.get("iscrowd") else numbers.get(category, VOID)
            objects[item["image_id"]].append((number, item, place))
        for entry in content["images"]:
            name, size = entry["file_name"], (entry.get("width"), entry.get("height"))
            key = (name, file.parent, source.split(file, Path(name).parent))
            listed.setdefault(key, (file, size, []))[2].extend(objects.pop(entry["id"], []))
        for key, found in objects.items():
            sentence = f"{file}: {len(found)} annotations of image {key}"
            labels.left_out.append(Problem("objects of images that are not listed", sentence))
    for (name, _, split), (file, size, objects) in listed.items():
        labels.add(name, file, partial(draw, objects), split, size)
    return labels


def categories(labels: Labels, content: dict, file: Path) -> dict[int, int]:
    """Return the class of each category, in the order of the ids. Omit the category that names Roboflow's project."""
    used, numbers = {annotation.get("category_id") for annotation in content["annotations"]}, {}
    groups = {category.get("supercategory") for category in content["categories"]}
    for category in sorted(content["categories"], key=lambda category: category["id"]):
        key, name = category["id"], category["name"]
        if key in used or name not in groups or category.get("supercategory") != "none":
            numbers[key] = labels.number(name, f"{file}: category {key}")
    return numbers


def draw(objects: list[tuple[int, dict, str]], mask: np.ndarray) -> list[Problem]:
    """Draw the objects of an image, given as (class, annotation, place)."""
    problems, crowds, shapes = [], [], []
    for number, item, place in objects:
        parts = item.get("segmentation")
        try:
            inside = decode(parts, mask.shape) if isinstance(parts, dict) else None
            outlines = [np.reshape(part, (-1, 2)).astype(float) for part in parts or [] if inside is None]
            if not parts and "bbox" in item:
                x, y, width, height = item["bbox"]
                outlines = [rectangle(x, y, x + width, y + height)]
            (crowds if item.get("iscrowd") else shapes).append(Shape(number, place, outlines, inside))
        except (ValueError, LookupError, TypeError) as error:
            problems.append(Problem("objects that cannot be understood", f"{place}: {error}"))
    return problems + draw_shapes(crowds + smaller_last(shapes), mask)
