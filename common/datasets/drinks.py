"""Drinks: photographs of a water bottle, a soda can and a juice bottle, labelled with polygons.

Source: Atienza, Advanced Deep Learning with Keras, 2nd edition, 2020, chapter 12. The polygons were drawn with VIA, the
VGG Image Annotator.
"""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from common.datasets.formats.raster import Region, rasterize
from common.datasets.formats.source import OTHER
from common.datasets.formats.via_project import images_of, outline
from common.datasets.reading import missing, read_image
from common.datasets.segmentation_set import DatasetSpec, split_off
from common.system.errors import UserError

CLASSES = ("background", "water bottle", "soda can", "juice bottle")
PALETTE = ((0, 0, 0), (40, 130, 255), (230, 40, 60), (255, 190, 30))


def drinks(data_root: Path) -> DatasetSpec:
    """Return the drinks: a tenth of the 1000 training images for validation, the 50 test images for the test.

    Raises:
        UserError: a missing file, a file that is no VIA project, or a region that is no polygon of a known class.
    """
    folder = data_root / "drinks"
    train, val = split_off(_samples(folder, "segmentation_train.json"))
    test = _samples(folder, "segmentation_test.json")
    return DatasetSpec(CLASSES, PALETTE, {"train": train, "val": val, "test": test}, read_sample=_read)


def _read(sample: tuple[str, Path, tuple[Region, ...]]) -> tuple[Image.Image, np.ndarray]:
    _, path, regions = sample
    image = read_image(path)
    return image, rasterize(regions, image.size)


def _samples(folder: Path, listing: str) -> list[tuple[str, Path, tuple[Region, ...]]]:
    """Return (name, image, regions) for each image in a VIA project; if the regions change, the cache is renewed."""
    path = folder / listing
    if not path.is_file():
        raise missing(path, "drinks", "drinks")
    samples = {}
    try:
        for name, regions in images_of(path):
            if name in samples:
                raise UserError(f"{path} lists {name} twice; put all its regions into one entry")
            if not (folder / name).is_file():
                raise UserError(f"{path} lists {name}, which is not in {folder}")
            places = (f"{path}: region {i} of {name}" for i in itertools.count(1))
            samples[name] = (name, folder / name, tuple(map(_region, regions, places)))
    except OTHER:
        raise UserError(f"{path} is no VIA project; save it with VIA 2's Project > Save") from None
    if not samples:
        raise UserError(f"{path} lists no image; it needs at least one")
    return list(samples.values())


def _region(region: dict, place: str) -> Region:
    """Return the class and corners of a VIA region; `place` names the region in an error message."""
    kind = region["region_attributes"].get("Name")
    if str(kind) not in ("1", "2", "3"):
        raise UserError(f"{place} has the class {kind!r}; expected Name 1 to 3: {', '.join(CLASSES[1:])}")
    return int(kind), outline(region, place)
