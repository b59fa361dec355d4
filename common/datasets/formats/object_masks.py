"""One mask for each object: a folder of masks for each image, white where the object is.

Kaggle's Data Science Bowl 2018 (cells) has <id>/images/<id>.png beside <id>/masks/<another id>.png. In other sets the
folder of an image's masks has the image's name: images/7.png and masks/7/1.png.
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
    image, masks = max(samples(source).items(), key=lambda item: len(item[1]), default=(None, []))
    if len(masks) < 2 or len(samples(source)) < 2:
        return ""
    return f"{source.name(masks[0].parent)} has {len(masks)} masks for {source.name(image)}"


def samples(source: Source) -> dict[Path, list[Path]]:
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
    """Return what the masks show: all objects are of one class."""
    found = samples(source)
    masks = {mask for masks in found.values() for mask in masks}
    labels = Labels(Images(file for file in source.pictures if file not in masks))
    number = labels.number("object", "")
    for image, files in found.items():
        labels.items.append(Item(image, partial(draw_each, [(number, file) for file in files])))
    return labels
