"""Masks that are pictures beside their images. pairs.py tells how they are found.

Roboflow (docs.roboflow.com, export format "Semantic Segmentation Masks") writes `..._mask.png` beside the images in the
folders train, valid and test, and there `_classes.csv`, with the columns Pixel Value and Class. Kaggle's CamVid and
DeepGlobe have `class_dict.csv`, with the columns name, r, g and b.
"""

import csv
from collections import defaultdict
from functools import partial
from pathlib import Path

from common.datasets.formats.labels import Item, Labels
from common.datasets.formats.pairs import JPEG, pairings
from common.datasets.formats.pictures import draw, draw_all, draw_each, own_classes
from common.datasets.formats.source import Images, Source
from common.datasets.reading import Problem, name_below, read_text
from common.labels import VOID, LabelMap
from common.system.errors import UserError

NAME = "images and masks"


def recognise(source: Source) -> str:
    """Return why these are images and masks, or nothing; nor if they lie as a training takes them."""
    try:
        pairs = [pair for found in pairings(source) for pair in found.pairs.items()]
    except UserError:  # `read` raises it again
        return "there are several ways to pair them"
    if not source.chosen and not source.binary and all(is_ours(source.root, image, mask) for mask, (image, _) in pairs):
        return ""
    some = "; ".join(f"{source.name(mask)} is the mask of {source.name(image)}" for mask, (image, _) in pairs[:3])
    classes = ", ".join(sorted({folder for _, (_, folder) in pairs} - {""}))
    return f"{some}, and folders are the classes {classes}" if classes else some


def is_ours(root: Path, image: Path, mask: Path) -> bool:
    """Return whether image and mask lie where a training takes them."""
    ours = image.is_relative_to(root / "images") and mask.is_relative_to(root / "masks")
    same = ours and name_below(root / "images", image) == name_below(root / "masks", mask)
    return same and mask.suffix.lower() not in JPEG


def read(source: Source) -> Labels:
    """Return what the masks show."""
    found = pairings(source)
    labels = Labels(Images(file for pairing in found for file in pairing.images.files))
    drawn = defaultdict(list)
    for pairing in found:
        for mask in pairing.masks.files:
            if mask in pairing.pairs:
                image, folder = pairing.pairs[mask]
                drawn[image].append((folder, mask))
            else:
                labels.left_out.append(Problem("masks without an image, or with several", str(mask)))
    masks = [mask for masks in drawn.values() for _, mask in masks]
    tables = [file for file in source.others if file.name == "_classes.csv"]
    if any(folder for masks in drawn.values() for folder, _ in masks):
        labels.notes.append("where masks overlap, the smaller one is on top")
        for image, files in drawn.items():
            numbered = [(labels.number(folder, str(mask)), mask) for folder, mask in sorted(files)]
            drawn[image] = partial(draw_each, numbered)
    else:
        paint = partial(draw, read_values(labels, tables[0])) if tables else own_classes(labels, masks, source)
        for image, files in drawn.items():
            drawn[image] = partial(draw_all, [mask for _, mask in files], paint)
    labels.items = [Item(image, paint) for image, paint in drawn.items()]
    return labels


def read_values(labels: Labels, file: Path) -> LabelMap:
    """Add the classes of Roboflow's _classes.csv; return the classes of values."""
    try:
        rows = [(int(value), name) for value, name in list(csv.reader(read_text(file).splitlines()))[1:]]
    except ValueError:
        raise UserError(f"{file} is no table of Pixel Value and Class; export it again") from None
    return LabelMap({VOID: VOID} | {value: labels.number(name, str(file)) for value, name in rows})
