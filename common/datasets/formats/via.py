"""VIA, the VGG Image Annotator: one attribute of its regions is the class. via_project.py reads its files.

Corners are pixels and belong to their region. A later region covers an earlier one.
"""

import contextlib
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from common.datasets.formats.labels import Labels
from common.datasets.formats.raster import EMPTY, rasterize
from common.datasets.formats.source import OTHER, Source, load_json
from common.datasets.formats.via_project import images_of, outline
from common.datasets.reading import Problem

NAME = "VIA"
USUAL = ("class", "label", "name", "category", "type", "object")  # attributes that most likely name the class


def recognise(source: Source) -> str:
    """Return the evidence for VIA, or ""."""
    return next((f"{source.name(file)} has regions for each filename" for file in projects(source)), "")


def projects(source: Source) -> dict[Path, list[tuple[str, list[dict]]]]:
    """Return the images and regions in VIA's JSON files, or in its CSV files if there are no JSON files."""
    found = {".json": {}, ".csv": {}}
    for file in source.others:
        with contextlib.suppress(Problem, *OTHER):
            if file.suffix.lower() in found and (images := images_of(file)):
                found[file.suffix.lower()][file] = images
    return found[".json"] or found[".csv"]


def read(source: Source) -> Labels:
    """Return the labels in the projects."""
    labels = Labels(source.images, notes=["where regions overlap, the later one in the file is on top"])
    files = projects(source)
    every = [region["region_attributes"] for images in files.values() for _, regions in images for region in regions]
    counts = Counter(name for attributes in every for name, value in attributes.items() if value)
    key = max(counts, key=lambda name: (name.casefold() in USUAL, counts[name]), default="")
    if every and not counts:
        labels.notes.append("no region has a class: all are one class, object")
    if len(counts) > 1:
        labels.notes.append(f"the class is the attribute {key!r}, of {', '.join(map(repr, sorted(counts)))}")
    for file, images in files.items():
        settings = load_json(file).get("_via_attributes", {}) if file.suffix.lower() == ".json" else {}
        options = settings.get("region", {}).get(key, {}).get("options") or {}  # the names of a menu's values
        for value, name in options.items():  # in the order of the menu
            labels.number(name or value, f"{file}: {key}")
        for name, regions in images:
            shapes = []
            for i, region in enumerate(regions, start=1):
                place, value = f"{file}: region {i} of {name}", region["region_attributes"].get(key)
                value = value if counts else "object"
                if isinstance(value, dict):  # checkboxes
                    value = next(iter(value)) if len(value) == 1 else None
                shapes.append((labels.number(options.get(value) or value, place), region, place))
            labels.add(name, file, partial(draw, shapes), source.split(file))
    return labels


def draw(shapes: list[tuple[int, dict, str]], mask: np.ndarray) -> list[Problem]:
    """Draw the regions of an image, given as (class, region, place)."""
    problems, drawn, (height, width) = [], [], mask.shape
    for number, region, place in shapes:
        try:
            corners = outline(region, place)
        except Problem as problem:
            problems.append(problem)
            continue
        x, y = zip(*corners, strict=True)
        if max(x) < 0 or max(y) < 0 or min(x) >= width or min(y) >= height:
            problems.append(Problem(EMPTY, f"{place} is outside of the image"))
        drawn.append((number, corners))
    mask[:] = rasterize(drawn, (width, height))
    return problems
