"""Label Studio's brush labels as PNG: a picture for each label, with the number of its task in its name.

label-studio-converter (HumanSignal/label-studio-converter, brush.py) writes the names
`task-<id>-annotation-<id>-by-<user>-<control>-<label>-<n>.png`. The folder must also hold the project's JSON export,
because only that file names the image of each task.
"""

import re
from collections import defaultdict
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from common.datasets.formats.labels import Labels
from common.datasets.formats.pictures import draw_each
from common.datasets.formats.source import Images, Source
from common.datasets.reading import SUFFIXES, Problem
from common.system.errors import UserError

NAME = "Label Studio's PNGs"
MASK = re.compile(r"task-(\d+)-annotation-(\d+)-by-[^-]*-[^-]+-(.+)-\d+")


def recognise(source: Source) -> str:
    """Return the evidence for Label Studio's PNGs, or ""."""
    found = next((file for file in source.pictures if MASK.fullmatch(file.stem)), None)
    return f"{source.name(found)} is the name of one of its masks" if found else ""


def read(source: Source) -> Labels:
    """Return the labels in the masks. If a task has several annotations, the last one counts."""
    labels = Labels(Images(file for file in source.images.files if not MASK.fullmatch(file.stem)))
    labels.notes.append("where labels overlap, the smaller one is on top")
    masks = defaultdict(lambda: defaultdict(list))  # task -> annotation -> class and file
    for file in source.pictures:
        if found := MASK.fullmatch(file.stem):
            masks[int(found[1])][int(found[2])].append((labels.number(found[3], str(file)), file))
    images = tasks(source, labels.left_out)
    if not images.keys() & masks.keys():
        raise UserError(
            f"{source.root} does not name the image of task {min(masks)}; also export the project as JSON, and put "
            "that file there"
        )
    for task, annotations in masks.items():
        *before, last = sorted(annotations)
        for files in map(annotations.get, before):
            labels.left_out.append(Problem("annotations of a task that has a later one", f"{files[0][1]} and such"))
        if task in images:
            labels.add(*images[task], partial(draw_each, annotations[last]))
        else:
            labels.left_out.append(Problem("masks of a task that the JSON export lacks", str(annotations[last][0][1])))
    return labels


def tasks(source: Source, problems: list[Problem]) -> dict[int, tuple[str, Path]]:
    """Return image and JSON file of each task, by its number; "JSON" and "JSON-MIN" exports are read."""
    images = {}
    for file, content in source.jsons(problems):
        for task in content if isinstance(content, list) else []:
            if name := image_of(task):
                images[task["id"]] = (name, file)
    return images


def image_of(task: dict) -> str:
    """Return the path or address of the image of a task, or ""."""
    values = [unquote(value) for value in (task.get("data") or task).values() if isinstance(value, str)]
    return next((value for value in values if Path(value).suffix.lower() in SUFFIXES), "")
