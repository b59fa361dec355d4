"""What a reader of a labelling program's files returns: classes, images, and how to draw their masks."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.datasets.formats.source import Images
from common.datasets.reading import Problem
from common.labels import VOID

UNLABELLED = "objects of no known class, which become void"
BOXES = "boxes without an outline, which become void"

BACKGROUND = ("background", "_background_")  # the second is LabelMe's
VOID_NAMES = ("ignore", "ignored", "__ignore__")


@dataclass
class Item:
    """An image, and how to draw its mask."""

    image: Path
    draw: Callable[[np.ndarray], list[Problem]]  # onto zeros (H, W) uint8; returns what it has left out
    split: str = ""  # "train", "val", "test", or not told
    size: tuple[int, int] | None = None  # width and height that the image has by its labels
    data: Callable[[], bytes] | None = None  # contents of the image, where it is no file


@dataclass
class Labels:
    """The classes and the images of an export."""

    images: Images
    names: list[str] = field(default_factory=lambda: ["background"])  # of the classes; more as they are met
    colors: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # of classes, if the export tells them
    items: list[Item] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # for the screen
    outlined: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})  # objects; the others are boxes

    def add(self, name: str, near: Path, draw: Callable, split: str = "", size: tuple = (0, 0)) -> None:
        """Add the image that the file `near` calls `name`, or say that it is not there."""
        try:
            self.items.append(Item(self.images.find(name, near), draw, split, size if all(size) else None))
        except Problem as problem:
            self.left_out.append(problem)

    def number(self, label: object, place: str) -> int:
        """Return the class of objects with `label`, whatever its case; VOID, and say so, if it is empty.

        Args:
            place: where the label stands.
        """
        name = class_name(label)
        if name.casefold() in VOID_NAMES:
            return VOID
        if not name:
            self.left_out.append(Problem(UNLABELLED, f"{place} has no label"))
            return VOID
        name = BACKGROUND[0] if name.casefold() in BACKGROUND else name
        known = [known.casefold() for known in self.names]
        if name.casefold() not in known:
            self.names.append(name)
            return len(known)
        number = known.index(name.casefold())
        if name != self.names[number]:
            note = f"the labels {self.names[number]!r} and {name!r} are one class"
            self.notes += [note] * (note not in self.notes)
        return number


def class_name(label: object) -> str:
    """Return `label` as classes.txt can have it: without `#` and commas, which end names there."""
    text = "" if label is None else unicodedata.normalize("NFC", str(label))
    return " ".join(re.sub("[#,]", " ", text).split())
