"""Label Studio's JSON export: outlines in percent of the image, and brush labels as runs of bits.

The manual (labelstud.io/guide/export) describes tasks with `annotations`. The `result` of an annotation has a `value`
for each region. In "JSON-MIN" the task itself has the values. Brush labels are packed by rle-pack of thi.ng/umbrella;
they hold red, green, blue and opacity of each pixel.
"""

from functools import partial

import numpy as np

from common.datasets.formats.label_studio import image_of
from common.datasets.formats.labels import Labels
from common.datasets.formats.raster import Shape, draw_objects, ellipse, rectangle, smaller_last, turned
from common.datasets.formats.rle import unpack
from common.datasets.formats.source import FEW, Source
from common.datasets.reading import Problem
from common.labels import VOID

NAME = "Label Studio's JSON"
SHAPES = {"points", "rle", "radiusX", "width"}  # keys of the value of a polygon, a brush label, an ellipse, a box


def recognise(source: Source) -> str:
    """Return the evidence for Label Studio's JSON, or ""."""
    for file, content in source.jsons([], FEW):
        if isinstance(content, list) and any(isinstance(task, dict) and regions(task) for task in content):
            return f"{source.name(file)} has tasks with regions"
    return ""


def regions(task: dict) -> list[dict] | None:
    """Return the regions in the last annotation of a task; None if nobody has labelled the task."""
    kept = [a["result"] for a in task.get("annotations") or [] if not a.get("was_cancelled")]
    minimal = [task[key] for key in task.keys() - {"annotations", "predictions"} if isinstance(task[key], list)]
    for entries in [*kept[::-1], *minimal]:
        values = [entry | entry.get("value", {}) for entry in entries if isinstance(entry, dict)]
        return [value for value in values if value.keys() & SHAPES]
    return None


def read(source: Source) -> Labels:
    """Return the labels in the tasks."""
    labels = Labels(source.images, notes=["where labels overlap, the smaller one is on top"])
    for file, content in source.jsons(labels.left_out):
        for task in content if isinstance(content, list) else []:
            place, shapes, size = f"{file}: task {task.get('id')}", [], (0, 0)
            if (found := regions(task)) is None:
                labels.left_out.append(Problem("tasks that nobody has labelled", place))
                continue
            for i, region in enumerate(found, start=1):
                at, box = f"{place}, region {i}", not region.keys() & (SHAPES - {"width"})
                kinds = [value for key, value in region.items() if key.endswith("labels") and value]
                labels.count(box, at)
                number = labels.number(kinds[0][0] if kinds else None, at)
                shapes.append((VOID if box else number, region, at))
                size = (region.get("original_width", 0), region.get("original_height", 0))
            paint = partial(draw_objects, shapes, shape_of, smaller_last)
            labels.add(image_of(task), file, paint, source.split(file), size)
    return labels


def shape_of(number: int, region: dict, place: str, size: tuple[int, int]) -> Shape:
    """Return the shape of a region, in an image of `size` (H, W)."""
    if region.get("image_rotation"):
        raise Problem("images that were turned in Label Studio", place)
    if "rle" in region:
        return Shape(number, place, inside=unpack(region["rle"]).reshape(*size, 4)[:, :, 3] > 0)
    x, y, degrees = region.get("x", 0), region.get("y", 0), region.get("rotation", 0)
    if "points" in region:
        corners = np.array(region["points"], dtype=float)
    elif "radiusX" in region:
        corners = ellipse(x, y, region["radiusX"], region["radiusY"])
    else:
        corners = rectangle(x, y, x + region["width"], y + region["height"])
    scale = np.array(size[::-1]) / 100
    return Shape(number, place, [turned(corners * scale, np.array([x, y]) * scale, degrees)])
