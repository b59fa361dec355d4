"""The result of reading an export: classes, images, and a function that draws the mask of each image."""

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
BACKGROUND = ("background", "_background_")  # LabelMe writes the second
VOID_NAMES = ("ignore", "ignored", "__ignore__")


@dataclass
class Item:
    """An image, and how to draw its mask."""

    image: Path
    draw: Callable[[np.ndarray], list[Problem]]  # draws onto zeros (H, W) uint8; returns problems with single objects
    split: str = ""  # "train", "val", "test", or unknown
    size: tuple[int, int] | None = None  # width and height of the image, if the labels tell them
    data: Callable[[], bytes] | None = None  # returns the content of an image that has no file of its own


@dataclass
class Labels:
    """The classes and the images of an export."""

    images: Images
    names: list[str] = field(default_factory=lambda: ["background"])  # names of the classes; `number` adds to them
    colors: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # colours of classes, if the export has them
    items: list[Item] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # sentences for the screen
    outlines: int = 0  # number of objects with an outline
    boxes: int = 0  # number of objects that are only a box

    def add(self, name: str, near: Path, draw: Callable, split: str = "", size: tuple = (0, 0)) -> None:
        """Add the image that the file `near` calls `name`, or a problem if there is no such image."""
        try:
            self.items.append(Item(self.images.find(name, near), draw, split, size if all(size) else None))
        except Problem as problem:
            self.left_out.append(problem)

    def count(self, is_box: bool, place: str) -> None:
        """Count an object; add a problem if it is only a box."""
        self.boxes, self.outlines = self.boxes + is_box, self.outlines + (not is_box)
        self.left_out += [Problem(BOXES, place)] * is_box

    def number(self, label: object, place: str) -> int:
        """Return the class with the name `label`, in any case; add the class if it is new.

        Without a name, return VOID and add a problem.

        Args:
            place: the file and object with this label.
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
        note = f"the labels {self.names[number]!r} and {name!r} are one class"
        if name != self.names[number] and note not in self.notes:
            self.notes.append(note)
        return number


def class_name(label: object) -> str:
    """Return `label` in the form of classes.txt: without `#` and commas, which end names there."""
    text = "" if label is None else unicodedata.normalize("NFC", str(label))
    return " ".join(re.sub("[#,]", " ", text).split())
