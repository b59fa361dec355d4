"""Label Studio's brush labels as PNG: a picture for each label, named by the number of its task.

The names are those that label-studio-converter (HumanSignal/label-studio-converter, brush.py) writes:
`task-<id>-annotation-<id>-by-<user>-<control>-<label>-<n>.png`. Only the project's JSON export, which must be in the
folder, too, tells which image a task has; the name of one that was uploaded has eight digits before it there.
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
    """Return why the export is one of Label Studio, or nothing."""
    return next(
        (f"{source.name(f)} is called as it calls masks" for f in source.pictures if MASK.fullmatch(f.stem)), ""
    )


def read(source: Source) -> Labels:
    """Return what the masks show; of several annotations of a task, the last."""
    labels = Labels(Images(file for file in source.images.files if not MASK.fullmatch(file.stem)))
    labels.notes.append("where labels overlap, the smaller one is on top")
    masks = defaultdict(lambda: defaultdict(list))  # task -> annotation -> class and file
    for file in source.pictures:
        if found := MASK.fullmatch(file.stem):
            masks[int(found[1])][int(found[2])].append((labels.number(found[3], str(file)), file))
    images = tasks(source, labels.left_out)
    if not images.keys() & masks.keys():
        raise UserError(
            f"{source.root} does not tell which image task {min(masks)} has; export the project as JSON, too, and put "
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
    """Return the image of each task by its number, and the file that tells it: the export "JSON" or "JSON-MIN"."""
    images = {}
    for file, content in source.jsons(problems):
        for task in content if isinstance(content, list) else []:
            if name := image_of(task):
                images[task["id"]] = (name, file)
    return images


def image_of(task: dict) -> str:
    """Return the path or address of the image of a task, or nothing."""
    values = [unquote(value) for value in (task.get("data") or task).values() if isinstance(value, str)]
    return next((value for value in values if Path(value).suffix.lower() in SUFFIXES), "")
