"""Which pictures of a folder are masks, and of which images, by their names.

Masks are called `..._mask`, `_label`, `_seg` or `_gt`, or lie in a folder that is called so, or in any but the folder
of images; or images are JPEGs, and masks the other pictures of the same names. Folders of masks that the images do not
have are classes, with a picture of an image in each.
"""

import re
from pathlib import Path

from common.datasets.formats.source import SPLIT, Images, Source
from common.datasets.reading import Problem, name_below

JPEG = (".jpg", ".jpeg", ".jfif")
ENDING = re.compile(r"[_\-. ](mask|label|seg|gt)s?$", re.IGNORECASE)
MASKS = re.compile(r"(?<![a-z])(mask|label|annotation|ann|seg|segmentation|gt|groundtruth)s?(?![a-z])", re.IGNORECASE)
IMAGES = re.compile(r"(?<![a-z])(image|img|photo|photograph|picture)s?(?![a-z])", re.IGNORECASE)


def divide(source: Source) -> tuple[list[Path], list[Path]]:
    """Return the images and the masks."""
    if source.images.files != source.pictures:  # the images are in a folder of their own
        return source.images.files, [file for file in source.pictures if file not in {*source.images.files}]
    files = {True: [], False: [], None: []}
    for file in source.pictures:
        files[is_mask(file.relative_to(source.root))].append(file)
    if files[True]:
        return files[False] + files[None], files[True]
    if files[False]:
        return files[False], files[None]
    jpegs = [file for file in files[None] if file.suffix.lower() in JPEG]
    return jpegs, [file for file in files[None] if file.suffix.lower() not in JPEG]


def is_mask(path: Path) -> bool | None:
    """Return whether a file is a mask by its name, or by that of the folder it is in; None if nothing tells."""
    if ENDING.search(path.stem):
        return True
    for part in reversed(path.parent.parts):
        if bool(MASKS.search(part)) != bool(IMAGES.search(part)):
            return bool(MASKS.search(part))
    return None


def pair(source: Source, images: Images, masks: list[Path], problems: list[Problem]) -> list[tuple[Path, Path, str]]:
    """Return image, mask and the folder that is the mask's class, or "", for each mask that has an image."""
    pairs, classes = [], set()
    for mask in masks:
        name = name_below(source.root, mask)
        try:
            image = images.find(ENDING.sub("", name), mask)
        except Problem as problem:
            problems.append(Problem("masks without an image", str(problem)))
            continue
        own = [part for part in Path(name).parent.parts if part not in image.parent.parts and not SPLIT.search(part)]
        folder = "/".join(part for part in own if not MASKS.search(part))
        pairs.append((image, mask, folder))
        classes.add((folder, len(own) > folder.count("/") + 1))
    if len(classes) == 1 and not classes.pop()[1]:  # all in a folder of any name
        pairs = [(image, mask, "") for image, mask, _ in pairs]
    return pairs
