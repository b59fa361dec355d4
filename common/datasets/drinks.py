"""Drinks: photographs of a water bottle, a soda can and a juice bottle, outlined by polygons.

The set of Atienza, Advanced Deep Learning with Keras, 2nd edition, 2020, chapter 12. The polygons were drawn with the
VGG Image Annotator (Dutta & Zisserman, The VIA Annotation Software for Images, Audio and Video, ACM Multimedia 2019),
whose project file is JSON.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from common.datasets.reading import read_image
from common.datasets.segmentation_set import DatasetSpec, split_off
from common.system.errors import UserError

CLASSES = ("background", "water bottle", "soda can", "juice bottle")
PALETTE = ((0, 0, 0), (40, 130, 255), (230, 40, 60), (255, 190, 30))
FAR = 1e6  # pixels; a coordinate beyond it is a mistake

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
        raise UserError(
            f"{path} is missing; python download.py drinks tells where to fetch it by hand; or point --data-root at "
            "the folder that holds drinks, or try --dataset shapes"
        )
    samples = {}
    for number, entry in enumerate(_entries(path), start=1):
        name, regions = (entry.get("filename"), entry.get("regions")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.encode()) < 256:
            raise UserError(f"{path}: entry {number} names no image; is this a project of VIA 2?")
        name = Path(name).as_posix()
        if name in samples:
            raise UserError(f"{path} lists {name} twice; unite its regions in one entry")
        if not (folder / name).is_file():
            raise UserError(f"{path} lists {name}, which is not in {folder}")
        if not isinstance(regions, list):
            raise UserError(f"{path}: {name} has no list of regions; is this a project of VIA 2?")
        places = [f"{path}: region {i} of {name}" for i in range(1, len(regions) + 1)]
        regions = tuple(_region(region, place) for region, place in zip(regions, places, strict=True))
        samples[name] = (name, folder / name, regions)
    if not samples:
        raise UserError(f"{path} lists no image; it needs at least one")
    return list(samples.values())


def _entries(path: Path) -> list:
    """Return what a VIA project says of each image."""

    def unique(pairs: list[tuple[str, object]]) -> dict:  # json itself keeps the last of two entries of one name
        if len(dict(pairs)) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise UserError(f"{path} lists {twice!r:.100} twice; keep one of them")
        return dict(pairs)

    try:
        project = json.loads(path.read_bytes(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error})") from None
    entries = project.get("_via_img_metadata") if isinstance(project, dict) else None
    if not isinstance(entries, dict):
        raise UserError(f"{path} is no VIA project: it has no _via_img_metadata; save it with VIA 2's Project > Save")
    return list(entries.values())


def _region(region: object, place: str) -> Region:
    """Return class and corners of a region of VIA's; `place` says in an error where it stands."""
    try:
        shape, kind = region["shape_attributes"], region["region_attributes"].get("Name")
        name, x, y = shape["name"], shape.get("all_points_x"), shape.get("all_points_y")
    except (TypeError, KeyError, AttributeError):
        raise UserError(f"{place} has no shape or no attributes; is this a project of VIA 2?") from None
    if name != "polygon":
        raise UserError(f"{place} is a {name!r:.40}; only polygons are read")
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
        raise UserError(f"{place} has not as many x as y; each point needs both")
    if len(x) < 3:
        raise UserError(f"{place} is a polygon with {len(x)} points; it needs at least 3")
    for value in x + y:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < FAR:  # NaN is not either
            raise UserError(f"{place} has the coordinate {value!r:.20}, which is no number of pixels")
    if str(kind) not in [str(i) for i in range(1, len(CLASSES))]:
        raise UserError(
            f"{place} has the class {kind!r:.40}; expected Name 1 to {len(CLASSES) - 1}: {', '.join(CLASSES[1:])}"
        )
    return int(kind), tuple((round(a), round(b)) for a, b in zip(x, y, strict=True))
