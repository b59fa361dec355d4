"""Data sets: `load` returns the decoded training, validation and test set of any data set."""

import os
import re
from dataclasses import replace
from pathlib import Path

from common.datasets.ade20k import ade20k, ade20k_other
from common.datasets.cache import decode_once, fingerprint
from common.datasets.drinks import drinks
from common.datasets.folder import folder
from common.datasets.pets import pets
from common.datasets.segmentation_set import DatasetSpec, SegmentationSet
from common.datasets.shapes import shapes
from common.datasets.splits import drawn_fold
from common.datasets.voc import voc2007, voc2012
from common.labels import VOID
from common.run import Run, short_name
from common.system.distributed import main_process_first
from common.system.errors import UserError

# Each function takes the data root and returns a DatasetSpec.
DATASETS = {
    "voc2007": voc2007,
    "voc2012": voc2012,
    "pets": pets,
    "drinks": drinks,
    "ade20k": ade20k,
    "ade20k_other": ade20k_other,
    "shapes": shapes,
}

Size = int | tuple[int, int]  # height and width in pixels, or one number for both

__all__ = ["DATASETS", "VOID", "DatasetSpec", "SegmentationSet", "Size", "load", "scaled", "spec_of"]


def load(
    dataset: str, image_size: Size, run: Run, train_scale: float = 1
) -> tuple[SegmentationSet, SegmentationSet, SegmentationSet]:
    """Return the train, validation and test set of `dataset`, every image and mask resized to `image_size`.

    The first call decodes and checks the files in parallel and stores the result under `run.cache_dir`. Later calls map
    this cache into memory and read no image file.

    Args:
        dataset: a key of `DATASETS`, or the path of a folder as described in `common.datasets.folder`.
        image_size: height and width in pixels, or one number for both. The aspect ratio is not kept.
        train_scale: factor by which the training images are larger than `image_size`, to be cropped later.
        run: gives the folders of the data and of the cache.

    Raises:
        UserError: an unknown name, missing or damaged files, or a mask value that is no class.
    """
    size = height_and_width(image_size)
    train_size = height_and_width(scaled(size, train_scale), "--stored-scale: the size")
    sizes = {"train": train_size, "val": size, "test": size}
    with main_process_first():
        spec = spec_of(dataset, run)
        for note in (*spec.notes, *(f"warning: {warning}" for warning in spec.warnings)):
            run.print(f"{dataset}: {note}")
        name = re.sub(r"[^\w.-]", "_", short_name(dataset))  # safe as a file name
        sets = [
            SegmentationSet(
                *decode_once(spec, name, split, size, Path(run.cache_dir), progress=run.rank == 0),
                names=[sample[0] for sample in spec.splits[split]],
                classes=spec.classes,
                palette=spec.palette,
                dataset=dataset,
                split=split,
                label_map=spec.label_map,
                splits={part: [sample[0] for sample in samples] for part, samples in spec.splits.items()},
                fingerprint=fingerprint(spec.splits[split], size, spec.label_map),
            )
            for split, size in sizes.items()
        ]
    counts = ", ".join(f"{len(s)} {s.split}" for s in sets)
    run.print(f"{dataset}: {counts} images at {'x'.join(map(str, sizes['val']))}, {len(spec.classes)} classes")
    return tuple(sets)


def spec_of(dataset: str, run: Run) -> DatasetSpec:
    """Return the specification of `dataset`, a key of `DATASETS` or the path of a folder.

    Raises:
        UserError: an unknown name, or missing files.
    """
    if dataset in DATASETS:
        spec = DATASETS[dataset](Path(run.data_root))
        return with_fold(spec, run.fold, dataset) if run.fold else spec
    path = Path(dataset).expanduser()
    if not dataset or not path.is_dir():
        reason = "is no folder" if {"/", os.sep} & set(dataset) else "is not known"
        raise UserError(
            f"--dataset {dataset} {reason}; choose one of {', '.join(DATASETS)}, or a folder with images/ and masks/"
        )
    return folder(path, Path(run.cache_dir), progress=run.rank == 0, fold=run.fold)


def with_fold(spec: DatasetSpec, fold: str, dataset: str) -> DatasetSpec:
    """Return `spec` with new splits, drawn from its training and validation images, without its test images.

    This keeps the real test set unseen while you tune.

    Args:
        fold: see `drawn_fold`.
    """
    samples = {sample[0]: sample for split in ("train", "val") for sample in spec.splits[split]}
    splits = drawn_fold(list(samples), fold, dataset).items()
    note = f"fold {fold} of the training and validation images; the {len(spec.splits['test'])} test images are left out"
    splits = {split: [samples[name] for name in names] for split, names in splits}
    return replace(spec, splits=splits, notes=(*spec.notes, note))


def height_and_width(size: Size, flag: str = "--image-size") -> tuple[int, int]:
    """Return (height, width).

    Args:
        flag: name of the size in the error message.

    Raises:
        UserError: a side is not from 1 to 16384 pixels.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if not 1 <= min(height, width) <= max(height, width) <= 2**14:
        given = size if isinstance(size, int) else f"{height}x{width}"
        raise UserError(f"{flag} {given} is not possible; a side has 1 to {2**14} pixels")
    return height, width


def scaled(size: Size, factor: float) -> tuple[int, int]:
    """Return `factor` times `size` as (height, width), rounded."""
    height, width = height_and_width(size)
    return round(factor * height), round(factor * width)
