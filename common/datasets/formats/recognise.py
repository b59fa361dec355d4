"""All formats that can be imported.

Each format is a module with NAME; `recognise`, which returns the evidence for the format, or ""; and `read`, which
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

# The first format that recognises the files reads them.
FORMATS = (labelme, coco, via, cvat, voc_masks, label_studio, label_studio_json, yolo, object_masks, run_lengths)
FORMATS += (mask_files,)


def recognise(source: Source) -> tuple[ModuleType | None, str]:
    """Return the format of the files and the evidence for it; None if no format fits."""
    return next(((format, reason) for format in FORMATS if (reason := format.recognise(source))), (None, ""))
