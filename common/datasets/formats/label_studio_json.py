"""Label Studio's JSON export: outlines in percent of the image, and brush labels as runs of bits.

Its manual (labelstud.io/guide/export) describes tasks with `annotations`, whose `result` has a `value` for each region;
in "JSON-MIN" the values are in the task itself. Brush labels are encoded as the tool writes them (rle-pack of
thi.ng/umbrella); the numbers are red, green, blue and opacity of each pixel.
"""

from functools import partial

import numpy as np

from common.datasets.formats.label_studio import image_of
from common.datasets.formats.labels import BOXES, Labels
from common.datasets.formats.raster import Shape, draw_shapes, ellipse, rectangle, smaller_last, turned
from common.datasets.formats.rle import unpack
from common.datasets.formats.source import FEW, Source
from common.datasets.reading import Problem
from common.labels import VOID

NAME = "Label Studio's JSON"
SHAPES = {"points", "rle", "radiusX", "width"}  # keys of the value of a polygon, a brush label, an ellipse, a box


def recognise(source: Source) -> str:
    """Return why the export is one of Label Studio, or nothing."""
    for file, content in source.jsons([], FEW):
        if isinstance(content, list) and any(isinstance(task, dict) and regions(task) for task in content):
            return f"{source.name(file)} has tasks with regions"
    return ""


def regions(task: dict) -> list[dict] | None:
    """Return the values of the regions of a task: of several annotations, the last counts. None: it is not labelled."""
    kept = [a["result"] for a in task.get("annotations") or [] if not a.get("was_cancelled")]
    minimal = [task[key] for key in task.keys() - {"annotations", "predictions"} if isinstance(task[key], list)]
    for entries in [*kept[::-1], *minimal]:
        values = [entry | entry.get("value", {}) for entry in entries if isinstance(entry, dict)]
        return [value for value in values if value.keys() & SHAPES]
    return None


def read(source: Source) -> Labels:
    """Return what the tasks say."""
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
                if box:
                    labels.left_out.append(Problem(BOXES, at))
                labels.outlined[not box] += 1
                number = labels.number(kinds[0][0] if kinds else None, at)
                shapes.append((VOID if box else number, region, at))
                size = (region.get("original_width", 0), region.get("original_height", 0))
            labels.add(image_of(task), file, partial(draw, shapes), source.split(file), size)
    return labels


def draw(found: list[tuple[int, dict, str]], mask: np.ndarray) -> list[Problem]:
    """Draw regions, each with its class and its place, onto `mask`; return what has been left out."""
    shapes, (height, width) = [], mask.shape
    for number, region, place in found:
        if region.get("image_rotation"):
            raise Problem("images that were turned in Label Studio", place)
        if "rle" in region:
            inside = unpack(region["rle"]).reshape(height, width, 4)[:, :, 3] > 0
            shapes.append(Shape(number, place, inside=inside))
            continue
        x, y, degrees = region.get("x", 0), region.get("y", 0), region.get("rotation", 0)
        if "points" in region:
            corners = np.array(region["points"], dtype=float)
        elif "radiusX" in region:
            corners = ellipse(x, y, region["radiusX"], region["radiusY"])
        else:
            corners = rectangle(x, y, x + region["width"], y + region["height"])
        scale = np.array([width, height]) / 100
        shapes.append(Shape(number, place, [turned(corners * scale, np.array([x, y]) * scale, degrees)]))
    return draw_shapes(smaller_last(shapes), mask)
