"""One mask for each object: an image has a folder of masks, which are white where the object is.

Kaggle's Data Science Bowl 2018 (cells) has <id>/images/<id>.png beside <id>/masks/<another id>.png. In other sets the
folder has the name of the image: images/7.png and masks/7/1.png.
"""

from collections import defaultdict
from functools import partial
from pathlib import Path

from common.datasets.formats.labels import Item, Labels
from common.datasets.formats.pictures import draw_each
from common.datasets.formats.source import Images, Source

NAME = "one mask for each object"


def recognise(source: Source) -> str:
    """Return the evidence for a mask of each object, or ""."""
    found = masks_of_images(source)
    image, masks = max(found.items(), key=lambda item: len(item[1]), default=(None, []))
    if len(masks) < 2 or len(found) < 2:
        return ""
    return f"{source.name(masks[0].parent)} has {len(masks)} masks for {source.name(image)}"


def masks_of_images(source: Source) -> dict[Path, list[Path]]:
    """Return the masks of each image."""
    folders, named = defaultdict(list), defaultdict(list)
    for file in source.pictures:
        folders[file.parent].append(file)
        named[file.stem].append(file)
    found = {}
    for folder, masks in folders.items():
        images = [file for file in named.get(folder.name, ()) if file.parent.name not in named]
        if folder.name == "masks":
            images = folders.get(folder.parent / "images", [])
        if len(images) == 1 and images[0] not in masks:
            found[images[0]] = masks
    return found


def read(source: Source) -> Labels:
    """Return the labels in the masks; all objects are one class."""
    found = masks_of_images(source)
    every = {mask for masks in found.values() for mask in masks}
    labels = Labels(Images(file for file in source.pictures if file not in every))
    number = labels.number("object", "")
    for image, masks in found.items():
        labels.items.append(Item(image, partial(draw_each, [(number, mask) for mask in masks])))
    return labels
