"""One mask for each object: a folder for each image, with the image in images/ and the objects in masks/.

Kaggle's Data Science Bowl 2018 (cells) has this layout: <id>/images/<id>.png beside <id>/masks/<another id>.png, which
is white where the object is.
"""

from collections import defaultdict
from functools import partial
from pathlib import Path

from common.datasets.formats.labels import Item, Labels
from common.datasets.formats.pictures import draw_each
from common.datasets.formats.source import Images, Source

NAME = "one mask for each object"


def recognise(source: Source) -> str:
    """Return why there is a mask for each object, or nothing."""
    found = samples(source)
    if any(len(images) != 1 for images, _ in found.values()) or not any(len(masks) > 1 for _, masks in found.values()):
        return ""
    place, (_, masks) = max(found.items(), key=lambda item: len(item[1][1]))
    return f"{source.name(place)} has one image and {len(masks)} masks"


def samples(source: Source) -> dict[Path, tuple[list[Path], list[Path]]]:
    """Return the images and the masks in each folder that has images/."""
    found = defaultdict(lambda: ([], []))
    for file in source.pictures:
        if file.parent.name in ("images", "masks"):
            found[file.parent.parent][file.parent.name == "masks"].append(file)
    return found


def read(source: Source) -> Labels:
    """Return what the masks show: all objects are of one class."""
    found = samples(source)
    labels = Labels(Images(image for images, _ in found.values() for image in images))
    number = labels.number("object", "")
    for (image,), masks in found.values():
        if masks:
            paint = partial(draw_each, [(number, mask) for mask in masks])
            labels.items.append(Item(image, paint))
    return labels
