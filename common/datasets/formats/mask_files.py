"""Masks that are pictures beside their images. pairs.py tells how they are found.

Roboflow (docs.roboflow.com, export format "Semantic Segmentation Masks") writes `..._mask.png` beside the images in the
folders train, valid and test, and there `_classes.csv`, with the columns Pixel Value and Class.
"""

import csv
from collections import defaultdict
from functools import partial
from pathlib import Path

from common.datasets.formats.labels import Item, Labels
from common.datasets.formats.pairs import JPEG, divide, pair
from common.datasets.formats.pictures import draw, draw_each, own_label_map
from common.datasets.formats.source import Images, Source
from common.datasets.reading import name_below, read_text
from common.labels import VOID, LabelMap
from common.system.errors import UserError

NAME = "images and masks"


def recognise(source: Source) -> str:
    """Return why these are images and masks, or nothing; nor if they lie as a training takes them."""
    images, masks = divide(source)
    pairs = pair(source, Images(images), masks, [])
    if not pairs or all(is_ours(source.root, image, mask) for image, mask, _ in pairs):
        return ""
    image, mask, _ = pairs[0]
    reason = f"{source.name(mask)} is the mask of {source.name(image)}"
    classes = ", ".join(sorted({folder for _, _, folder in pairs} - {""}))
    return f"{reason}, and folders are the classes {classes}" if classes else reason


def is_ours(root: Path, image: Path, mask: Path) -> bool:
    """Return whether image and mask lie where a training takes them."""
    ours = image.is_relative_to(root / "images") and mask.is_relative_to(root / "masks")
    same = ours and name_below(root / "images", image) == name_below(root / "masks", mask)
    return same and mask.suffix.lower() not in JPEG


def read(source: Source) -> Labels:
    """Return what the masks show."""
    images, masks = divide(source)
    labels = Labels(Images(images))
    pairs = pair(source, labels.images, masks, labels.left_out)
    masks, tables = [mask for _, mask, _ in pairs], [file for file in source.others if file.name == "_classes.csv"]
    if any(folder for _, _, folder in pairs):
        labels.notes.append("where masks overlap, the smaller one is on top")
        drawn = defaultdict(list)
        for image, mask, folder in sorted(pairs, key=lambda pair: pair[2]):
            drawn[image].append((labels.number(folder, str(mask)), mask))
        items = [(image, partial(draw_each, files)) for image, files in drawn.items()]
    else:
        label_map = read_values(labels, tables[0]) if tables else own_label_map(labels, masks, source)
        items = [(image, partial(draw, mask, label_map)) for image, mask, _ in pairs]
    labels.items = [Item(image, paint, source.split(image.parent)) for image, paint in items]
    return labels


def read_values(labels: Labels, file: Path) -> LabelMap:
    """Add the classes of Roboflow's _classes.csv; return the classes of values."""
    try:
        rows = [(int(value), name) for value, name in list(csv.reader(read_text(file).splitlines()))[1:]]
    except ValueError:
        raise UserError(f"{file} is no table of Pixel Value and Class; export it again") from None
    return LabelMap({VOID: VOID} | {value: labels.number(name, str(file)) for value, name in rows})
