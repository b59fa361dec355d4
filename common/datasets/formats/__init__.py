"""What labelling programs export, a file for each format.

Each has NAME; `recognise`, which returns why files are of that format, or nothing; and `read`, which returns Labels.
"""

from types import ModuleType

from common.datasets.formats import (
    coco,
    cvat,
    label_studio,
    label_studio_json,
    labelme,
    mask_files,
    object_masks,
    run_lengths,
    via,
    voc_masks,
    yolo,
)
from common.datasets.formats.source import Source

FORMATS = (  # the first that recognises the files reads them
    labelme,
    coco,
    via,
    cvat,
    voc_masks,
    label_studio,
    label_studio_json,
    yolo,
    object_masks,
    run_lengths,
    mask_files,
)


def recognise(source: Source) -> tuple[ModuleType | None, str]:
    """Return the format of the files, and why they are taken for it; None if they are of none."""
    return next(((format, reason) for format in FORMATS if (reason := format.recognise(source))), (None, ""))
