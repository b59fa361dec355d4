"""What labelling programs export, a file for each format.

Each has NAME; `recognise`, which returns why files are of that format, or nothing; and `read`, which returns Labels.
"""

from types import ModuleType

from common.datasets.formats import coco, label_studio, labelme, mask_files, via, voc_masks
from common.datasets.formats.source import Source

FORMATS = (labelme, coco, via, voc_masks, label_studio, mask_files)  # the first that recognises the files reads them


def recognise(source: Source) -> tuple[ModuleType | None, str]:
    """Return the format of the files, and why they are taken for it; None if they are of none."""
    return next(((format, reason) for format in FORMATS if (reason := format.recognise(source))), (None, ""))
