"""YOLO's data.yaml names the classes, and the folders or lists of the splits. This reads its few forms of YAML."""

import re
from collections.abc import Callable
from pathlib import Path

from common.datasets.formats.source import SPLIT, Source
from common.datasets.reading import read_text
from common.system.errors import UserError

BLOCK = re.compile(r"^([\w-]+)[ \t]*:(.*(?:\n(?:[ \t\-\]}].*)?)*)", re.MULTILINE)  # a key and its lines
ENTRY = r"[\s,[\]{{}}]*(?:-[ \t]+)?(?:[\"']?(\d+)[\"']?[ \t]*:[ \t]+)?(\"[^\"\n]*\"|'[^'\n]*'|[^{}\n]+)"
LINES, INLINE = re.compile(ENTRY.format("")), re.compile(ENTRY.format(r",[\]{}"))  # an entry in a line, or in [] or {}


def read_yaml(file: Path) -> dict[str, list[str]]:
    """Return the texts below each key: a single text, a list, or lines `0: name` in the order of their numbers.

    Raises:
        UserError: the names have another form, or their numbers leave gaps.
    """
    content = {}
    for key, block in BLOCK.findall(re.sub(r"(?m)(^|\s)#.*$", "", read_text(file))):
        found = (INLINE if block.strip()[:1] in ("[", "{") else LINES).findall(block)
        entries = [(int(number or i), text.strip(" \t'\"")) for i, (number, text) in enumerate(found) if text.strip()]
        content[key] = [text for _, text in sorted(entries)]
        in_order = [i for i, _ in sorted(entries)] == [*range(len(entries))]
        if key == "names" and (not in_order or ": " in "".join(content[key])):
            raise UserError(f"{file}: names should be a list, or lines `0: name`, `1: name`, ... without gaps")
    return content


def splits(content: dict[str, list[str]], source: Source) -> Callable[[Path], list[str]]:
    """Return a function from an image to its splits.

    The entries train, val and test name folders, or text files that list images. The folders of all other images name
    the split.
    """
    folders, lists = {}, {}  # folder, or the last two parts of an image's path -> splits
    for key, places in content.items():
        for place in places if (split := SPLIT.fullmatch(key)) else []:
            place = re.sub(r"^(\.*[/\\])+", "", place).strip("/\\")
            folders.setdefault(f"/{place}/", set()).add(split[1].lower())
            for file in source.others:
                if place.endswith(".txt") and f"/{source.name(file)}".endswith(f"/{place}"):
                    for line in read_text(file).splitlines():
                        lists.setdefault(Path(line.strip()).parts[-2:], set()).add(split[1].lower())

    def told(image: Path) -> list[str]:
        found = {split for place in folders if place in f"/{source.name(image)}" for split in folders[place]}
        return sorted(found | lists.get(image.parts[-2:], set())) or [source.split(image.parent)]

    return told
