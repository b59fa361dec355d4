"""Drinks: photographs of a water bottle, a soda can and a juice bottle, outlined by polygons.

The set of Atienza, Advanced Deep Learning with Keras, 2nd edition, 2020, chapter 12. The polygons were drawn with the
VGG Image Annotator (Dutta & Zisserman, The VIA Annotation Software for Images, Audio and Video, ACM Multimedia 2019),
whose project file is JSON.
"""

import itertools
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from common.datasets.reading import missing, read_image
from common.datasets.segmentation_set import DatasetSpec, split_off
from common.system.errors import UserError

CLASSES = ("background", "water bottle", "soda can", "juice bottle")
PALETTE = ((0, 0, 0), (40, 130, 255), (230, 40, 60), (255, 190, 30))

Region = tuple[int, tuple[tuple[int, int], ...]]  # class, corners (x, y) in pixels


def drinks(data_root: Path) -> DatasetSpec:
    """Return the drinks: a tenth of the 1000 training images to validate on, the 50 test images as test.

    Raises:
        UserError: a file that is missing or no VIA project; a region that is no polygon of one of the classes.
    """
    folder = data_root / "drinks"
    train, val = split_off(_samples(folder, "segmentation_train.json"))
    test = _samples(folder, "segmentation_test.json")
    return DatasetSpec(CLASSES, PALETTE, {"train": train, "val": val, "test": test}, read_sample=_read)


def rasterize(regions: tuple[Region, ...], size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) uint8 of `regions`, each over the ones before it, clipped at the image's edges.

    Args:
        regions: class and corners of each.
        size: width and height of the image, as Pillow has it.
    """
    mask = Image.new("L", size, 0)
    for kind, corners in regions:
        ImageDraw.Draw(mask).polygon(corners, fill=kind)
    return np.asarray(mask)


def _read(sample: tuple[str, Path, tuple[Region, ...]]) -> tuple[Image.Image, np.ndarray]:
    _, path, regions = sample
    image = read_image(path)
    return image, rasterize(regions, image.size)


def _samples(folder: Path, listing: str) -> list[tuple[str, Path, tuple[Region, ...]]]:
    """Return (name, image, regions) for each image in a VIA project; a change of its regions renews the cache."""
    path = folder / listing
    if not path.is_file():
        raise missing(path, "drinks", "drinks")
    samples = {}
    try:
        for entry in json.loads(path.read_bytes())["_via_img_metadata"].values():
            name = entry["filename"]
            if name in samples:
                raise UserError(f"{path} lists {name} twice; unite its regions in one entry")
            if not (folder / name).is_file():
                raise UserError(f"{path} lists {name}, which is not in {folder}")
            places = (f"{path}: region {i} of {name}" for i in itertools.count(1))
            samples[name] = (name, folder / name, tuple(map(_region, entry["regions"], places)))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{path} is no VIA project; save it with VIA 2's Project > Save") from None
    if not samples:
        raise UserError(f"{path} lists no image; it needs at least one")
    return list(samples.values())


def _region(region: dict, place: str) -> Region:
    """Return class and corners of a region of VIA's; `place` says in an error where it stands."""
    shape, kind = region["shape_attributes"], region["region_attributes"].get("Name")
    if shape["name"] != "polygon":
        raise UserError(f"{place} is a {shape['name']!r}; only polygons are read")
    corners = tuple((round(x), round(y)) for x, y in zip(shape["all_points_x"], shape["all_points_y"], strict=True))
    if len(corners) < 3:
        raise UserError(f"{place} is a polygon with {len(corners)} points; it needs at least 3")
    if str(kind) not in ("1", "2", "3"):
        raise UserError(f"{place} has the class {kind!r}; expected Name 1 to 3: {', '.join(CLASSES[1:])}")
    return int(kind), corners
