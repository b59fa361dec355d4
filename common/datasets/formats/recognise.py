"""All formats, and which of them some files have.

Each format has NAME; `recognise`, which returns the reason why files have this format, or nothing; and `read`, which
returns Labels.
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

FORMATS = (  # the first one that recognises the files reads them
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
    """Return the format of the files and the reason; None if no format fits."""
    return next(((format, reason) for format in FORMATS if (reason := format.recognise(source))), (None, ""))
