"""PASCAL VOC's layout: SegmentationClass/ beside JPEGImages/. CVAT ("Segmentation mask 1.1") and others write it.

CVAT's manual (docs.cvat.ai, formats "Segmentation mask" and "Pascal VOC") describes labelmap.txt, with a line
`name:red,green,blue:parts:actions` for each class, and the lists in ImageSets/Segmentation/. LabelMe's labelme2voc.py
writes class_names.txt instead, with a line for each of the values 0, 1, 2, ... The value 255 or VOC's colour is void.
"""

from functools import partial
from pathlib import Path

from common.datasets.formats.labels import Labels
from common.datasets.formats.pictures import draw, own_classes
from common.datasets.formats.source import SPLIT, Images, Source
from common.datasets.reading import name_below, read_text
from common.labels import VOID, VOID_COLOR, LabelMap, color_number
from common.system.errors import UserError

NAME = "VOC's layout"
FOLDERS = ("SegmentationClass", "SegmentationClassPNG")


def recognise(source: Source) -> str:
    """Return the evidence for VOC's layout, or ""."""
    return f"{source.name(folder)} has masks" if (folder := masks_folder(source)) else ""


def masks_folder(source: Source) -> Path | None:
    """Return the folder of the masks, if there is one."""
    parents = dict.fromkeys(file.parent for file in source.pictures)
    return next((folder for parent in parents for folder in (parent, *parent.parents) if folder.name in FOLDERS), None)


def read(source: Source) -> Labels:
    """Return the labels in the masks."""
    folder = masks_folder(source)
    others = [*folder.parent.glob("Segmentation*")]  # such as SegmentationObject
    images = [file for file in source.images.files if not any(map(file.is_relative_to, others))]
    masks = [file for file in source.pictures if file.is_relative_to(folder)]
    labels, colors, names = Labels(Images(images)), folder.parent / "labelmap.txt", folder.parent / "class_names.txt"
    if colors.is_file():
        paint = partial(draw, read_colors(labels, colors))
    elif names.is_file():
        lines = enumerate(read_text(names).splitlines())
        paint = partial(draw, LabelMap({VOID: VOID} | {value: labels.number(name, names) for value, name in lines}))
    else:
        paint = own_classes(labels, masks, source)
    splits = {}
    for listing in sorted(folder.parent.glob("ImageSets/Segmentation/*.txt")):
        if split := SPLIT.fullmatch(listing.stem):  # not trainval.txt, nor CVAT's default.txt
            splits |= dict.fromkeys(read_text(listing).splitlines(), split[1].lower())
    for mask in masks:
        name = name_below(folder, mask)
        labels.add(name, mask, partial(paint, mask), splits.get(name, ""))
    return labels


def read_colors(labels: Labels, file: Path) -> LabelMap:
    """Add the classes in CVAT's labelmap.txt to `labels`; return the class of each colour."""
    lines = [line.split(":") for line in read_text(file).splitlines() if line.strip() and not line.startswith("#")]
    try:
        colors = {name: tuple(map(int, color.split(","))) for name, color, *_ in lines}
        known = {color_number(VOID_COLOR): VOID}
        if (0, 0, 0) in colors.values():  # otherwise black is the background
            labels.names.clear()
        for name, color in sorted(colors.items(), key=lambda item: item[0] != "background"):
            if color != VOID_COLOR:
                known[color_number(color)] = number = labels.number(name, str(file))
                labels.colors[number] = color
    except ValueError:
        raise UserError(f"{file} is no list of `name:red,green,blue:parts:actions`; export it again") from None
    return LabelMap({}, {0: 0} | known, True)
