"""Masks that are pictures beside their images; pairs.py finds them.

Roboflow (docs.roboflow.com, export format "Semantic Segmentation Masks") writes `..._mask.png` beside the images in the
folders train, valid and test. Its `_classes.csv` has the columns Pixel Value and Class. CamVid and DeepGlobe on Kaggle
have `class_dict.csv`, with the columns name, r, g and b.
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
    """Return the evidence for images and masks, or "". A folder that needs no import gives "", too."""
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
    """Return whether image and mask already lie in images/ and masks/, under the same name."""
    ours = image.is_relative_to(root / "images") and mask.is_relative_to(root / "masks")
    same = ours and name_below(root / "images", image) == name_below(root / "masks", mask)
    return same and mask.suffix.lower() not in JPEG


def read(source: Source) -> Labels:
    """Return the labels in the masks."""
    found = pairings(source)
    labels = Labels(Images(file for pairing in found for file in pairing.images.files))
    masks_of = defaultdict(list)  # image -> (folder that names the class, or "", and mask)
    for pairing in found:
        for mask in pairing.masks.files:
            if mask in pairing.pairs:
                image, folder = pairing.pairs[mask]
                masks_of[image].append((folder, mask))
            else:
                labels.left_out.append(Problem("masks without an image, or with several", str(mask)))
    every = [pair for pairs in masks_of.values() for pair in pairs]
    tables = [file for file in source.others if file.name == "_classes.csv"]
    if any(folder for folder, _ in every):
        labels.notes.append("where masks overlap, the smaller one is on top")
        for image, pairs in masks_of.items():
            numbered = [(labels.number(folder, str(mask)), mask) for folder, mask in sorted(pairs)]
            labels.items.append(Item(image, partial(draw_each, numbered)))
        return labels
    masks = [mask for _, mask in every]
    paint = partial(draw, read_values(labels, tables[0])) if tables else own_classes(labels, masks, source)
    for image, pairs in masks_of.items():
        labels.items.append(Item(image, partial(draw_all, [mask for _, mask in pairs], paint)))
    return labels


def read_values(labels: Labels, file: Path) -> LabelMap:
    """Add the classes in Roboflow's _classes.csv to `labels`; return the class of each mask value."""
    try:
        rows = [(int(value), name) for value, name in list(csv.reader(read_text(file).splitlines()))[1:]]
    except ValueError:
        raise UserError(f"{file} is no table of Pixel Value and Class; export it again") from None
    return LabelMap({VOID: VOID} | {value: labels.number(name, str(file)) for value, name in rows})
