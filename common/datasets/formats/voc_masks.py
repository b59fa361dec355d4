"""The layout of PASCAL VOC, SegmentationClass/ beside JPEGImages/, as CVAT ("Segmentation mask 1.1") and others write.

CVAT's manual (docs.cvat.ai, formats "Segmentation mask" and "Pascal VOC") describes labelmap.txt, with a line
`name:red,green,blue:parts:actions` for each class, and the lists in ImageSets/Segmentation/. LabelMe's labelme2voc.py
writes class_names.txt instead, whose lines stand for the values 0, 1, 2, ... Void is VOC's value, 255, or its colour.
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
    """Return why the export is in VOC's layout, or nothing."""
    return f"{source.name(folder)} has masks" if (folder := masks_folder(source)) else ""


def masks_folder(source: Source) -> Path | None:
    """Return the folder of the masks, if there is one."""
    return next((parent for file in source.pictures for parent in file.parents if parent.name in FOLDERS), None)


def read(source: Source) -> Labels:
    """Return what the masks show."""
    folder = masks_folder(source)
    others = [*folder.parent.glob("Segmentation*")]  # such as SegmentationObject
    images = [file for file in source.images.files if not any(map(file.is_relative_to, others))]
    masks = [file for file in source.pictures if file.is_relative_to(folder)]
    labels, files = Labels(Images(images)), (folder.parent / "labelmap.txt", folder.parent / "class_names.txt")
    if files[0].is_file():
        paint = partial(draw, read_colors(labels, files[0]))
    elif files[1].is_file():
        names = enumerate(read_text(files[1]).splitlines())
        numbers = {VOID: VOID} | {value: labels.number(name, files[1]) for value, name in names}
        paint = partial(draw, LabelMap(numbers))
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
    """Add the classes of CVAT's labelmap.txt; return the classes of colours."""
    lines = [line.split(":") for line in read_text(file).splitlines() if line.strip() and not line.startswith("#")]
    try:
        colors = {name: tuple(map(int, color.split(","))) for name, color, *_ in lines}
        known = {color_number(VOID_COLOR): VOID}
        if (0, 0, 0) in colors.values():  # else it is the background's
            labels.names.clear()
        for name, color in sorted(colors.items(), key=lambda item: item[0] != "background"):
            if color != VOID_COLOR:
                known[color_number(color)] = number = labels.number(name, str(file))
                labels.colors[number] = color
    except ValueError:
        raise UserError(f"{file} is no list of `name:red,green,blue:parts:actions`; export it again") from None
    return LabelMap({}, {0: 0} | known, True)
