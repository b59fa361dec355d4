"""PASCAL VOC 2007 and 2012 in their official layout: 20 classes of objects, and background.

Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 2010.
"""

from pathlib import Path

from common.datasets.reading import missing, read_text
from common.datasets.segmentation_set import DatasetSpec, split_off
from common.labels import LabelMap, voc_palette
from common.system.errors import UserError

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


PALETTE = voc_palette(len(CLASSES))
LABEL_MAP = LabelMap.plain(PALETTE)


def voc2007(data_root: Path) -> DatasetSpec:
    """Return the segmentation set of VOC 2007: 209 images for training, 213 for validation, 210 for the test."""
    folder = data_root / "VOCdevkit" / "VOC2007"
    splits = {split: _samples(folder, split, "voc2007") for split in ("train", "val", "test")}
    return DatasetSpec(CLASSES, PALETTE, splits, LABEL_MAP)


def voc2012(data_root: Path) -> DatasetSpec:
    """Return the segmentation set of VOC 2012: 1464 training images, a tenth of them for validation.

    The 1449 official validation images are the test set, because the labels of the official test set are not public.
    """
    folder = data_root / "VOCdevkit" / "VOC2012"
    train, val = split_off(_samples(folder, "train", "voc2012"))
    splits = {"train": train, "val": val, "test": _samples(folder, "val", "voc2012")}
    return DatasetSpec(CLASSES, PALETTE, splits, LABEL_MAP)


def _samples(folder: Path, split: str, dataset: str) -> list[tuple[str, Path, Path]]:
    """Return (name, image, mask) for each name in the official list of `split`."""
    listing = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listing.is_file():
        raise missing(listing, dataset, "VOCdevkit")
    names = read_text(listing).split()
    if not names:
        raise UserError(f"{listing} is empty; it should list one image name per line")
    images, masks = folder / "JPEGImages", folder / "SegmentationClass"
    return [(name, images / f"{name}.jpg", masks / f"{name}.png") for name in names]
