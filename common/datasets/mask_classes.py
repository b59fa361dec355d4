"""Which classes the masks of a folder hold, with classes.txt or without; folder.py says what the rules are."""

import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.datasets.cache import fingerprint
from common.datasets.reading import distinct, noted, open_image, ranges, read_codes, read_text, rgb
from common.datasets.segmentation_set import VOID, Coding, color_number
from common.datasets.voc import voc_palette
from common.errors import UserError
from common.files import write_json

MOST = 255  # classes: a mask has 8 bits a pixel, and VOID is one of its values
SMALLEST_GREY = 25  # smaller values are numbers of classes, not levels of grey
MOST_FOUND = 200  # smoothed outlines have all values; so many are classes only if classes.txt lists them
MOST_GREYS = 32  # the same, where the values are not simply 0, 1, 2, ...

# Values of grey masks, numbers of palette masks, these with their colours, colours of RGB masks; each with a file.
KINDS = ("grey", "palette", "palette colors", "color")
Found = dict[str, dict[int, str]]


@dataclass
class Classes:
    """What classes.txt says."""

    names: list[str] = field(default_factory=list)
    colors: list[int] = field(default_factory=list)  # 0xRRGGBB; none, or one for each name
    ignored: list[int] = field(default_factory=list)  # values
    ignored_colors: list[int] = field(default_factory=list)


def read_classes(file: Path) -> Classes | None:
    """Return what `file` says, if it is there.

    Raises:
        UserError: a line that cannot be understood, or repeats one before; less than two classes; no UTF-8.
    """
    if not file.is_file():
        return None
    classes = Classes()
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        line = re.sub(r"[\s,]+", " ", line).strip()
        if not line:
            continue
        place = f"{file}, line {number}, {line!r:.60},"
        name, code, *parts = re.fullmatch(r"(.*?) ?(?:#([\da-fA-F]{6})|(?<!\S)(\d+) (\d+) (\d+))?", line).groups()
        if "#" in name or any(len(part) > 9 or int(part) > 255 for part in parts if part):
            raise UserError(f"{place} has a colour that is none; write `name 0 128 255` or `name #0080ff`")
        if not name or not name.isprintable():
            raise UserError(f"{place} has no name; write `name`, `name 0 128 255` or `name #0080ff`")
        color = int(code, 16) if code else color_number(map(int, parts)) if parts[0] else None
        if match := re.fullmatch(r"ignore (\d{1,5})", line):
            classes.ignored.append(int(match[1]))
        elif name == "ignore" and color is not None:
            classes.ignored_colors.append(color)
        elif name == "ignore":
            raise UserError(f"{place} does not say what to ignore; write `ignore 255`, or a colour")
        elif name in classes.names or color in classes.colors:
            raise UserError(f"{place} has the name or the colour of a line before; each class needs its own")
        elif classes.names and bool(classes.colors) != (color is not None):
            raise UserError(f"{place} differs from the lines before; give every class a colour, or none")
        else:
            classes.names.append(name)
            classes.colors += [] if color is None else [color]
    if not 2 <= len(classes.names) <= MOST:
        raise UserError(f"{file} names {len(classes.names)} classes; there can be 2 to {MOST}, one a line")
    return classes


def scan(
    masks: list[tuple[str, Path]], cache_dir: Path, progress: bool, problems: list[UserError] | None = None
) -> Found:
    """Return what occurs in the masks, given by name and path; look through them once, and keep that in `cache_dir`.

    Raises:
        UserError: a mask that cannot be read; where there are `problems`, it is added to them and passed over.
    """
    record = cache_dir / f"masks-{fingerprint(masks, (0, 0))}.json"
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        return {kind: {int(code): file for code, file in known[kind].items()} for kind in KINDS}
    except (OSError, ValueError, AttributeError, KeyError):
        pass  # it is not there, or damaged
    found = {kind: {} for kind in KINDS}

    def look(mask: tuple[str, Path]) -> dict[str, list[int]]:
        with noted(problems):
            return _look(mask[1])
        return {}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(look, masks)
        bar = tqdm(looks, "looking through the masks", len(masks), unit="mask", leave=False, disable=None)
        for (_, path), seen in zip(masks, bar if progress else looks, strict=True):
            for kind, codes in seen.items():
                for code in codes:
                    found[kind].setdefault(code, str(path))
    if not problems:
        write_json(record, found)
    return found


def _look(path: Path) -> dict[str, list[int]]:
    """Return what occurs in one mask; a number in a palette with its colour is 2**24 times the one plus the other."""
    image = open_image(path)
    codes, are_colors = read_codes(image, path)
    values = distinct(codes)
    if len(values) > MOST + 1 or min(values) < 0:
        what = "colours" if are_colors else "values"
        raise UserError(f"{path} holds {len(values)} different {what}, which cannot be classes; {_hint([path])}")
    if image.mode != "P":
        return {"color" if are_colors else "grey": values}
    colors = np.array((image.getpalette("RGB") + 768 * [0])[:768]).reshape(-1, 3).tolist()
    colors = [color_number(color) for color in colors]
    return {"palette": values, "palette colors": [(value << 24) + colors[value] for value in values]}


def interpret(
    found: Found, listed: Classes | None, path: Path, strict: bool = True
) -> tuple[tuple, tuple, Coding, list[str]]:
    """Return classes, palette and coding of the masks in the folder `path`, and what to say about them.

    Args:
        strict: do not take values or colours that classes.txt lacks; otherwise it is for `read_mask` to refuse them.

    Raises:
        UserError: values or colours that classes.txt lacks or, if there is none, that cannot be classes.
    """
    numbers, colors, indexed = dict(found["grey"]), dict(found["color"]), {}
    for code in found["palette colors"]:
        indexed.setdefault(code >> 24, []).append(code & 0xFFFFFF)
    by_color = _palettes_are_colors(indexed, colors, listed)
    if by_color:
        colors |= {code & 0xFFFFFF: file for code, file in found["palette colors"].items()}
    else:
        numbers |= found["palette"]
    if not (listed and listed.colors) and all(map(_is_grey, colors)):  # RGB files of grey masks
        numbers |= {color & 255: file for color, file in colors.items()}
        colors = {}
    if listed:
        names, palette, known, known_colors = _as_listed(numbers, colors, listed, path / "classes.txt", strict)
        notes = []
    else:
        names, palette, known, known_colors = _as_found(numbers, colors, indexed, path)
        ignored = f"; {VOID} is ignored" if VOID in known.values() else ""
        shown = f"{', '.join(names[:12])}{', ...' * (len(names) > 12)}"
        notes = [f"the masks hold {len(names)} classes: {shown}{ignored} (classes.txt can name them)"]
    if set(numbers) == {0, 255} and known.get(255) == 1:
        notes = [f"masks of 0 and 255 alone: a binary task, in which 0 is {names[0]!r} and 255 {names[1]!r}"]
    greys = {value * 0x010101: index for value, index in known.items() if value < 256}
    return tuple(names), tuple(palette), Coding(known, greys | known_colors, by_color), notes


def _palettes_are_colors(indexed: dict[int, list[int]], colors: Iterable[int], listed: Classes | None) -> bool:
    """Return whether the colours in palette masks are the classes, rather than the numbers.

    Some programs sort each file's palette anew: then a number has several colours.
    """
    if listed and listed.colors:
        return {c for several in indexed.values() for c in several} <= {*listed.colors, *listed.ignored_colors}
    return any(len(several) > 1 for several in indexed.values()) or not all(map(_is_grey, colors))


def _as_listed(numbers: dict, colors: dict, listed: Classes, file: Path, strict: bool) -> tuple[list, list, dict, dict]:
    """Return names, palette, and what numbers and colours mean, according to classes.txt."""
    size = len(listed.names)
    known_colors = dict.fromkeys(listed.ignored_colors, VOID)
    known_colors |= {color: index for index, color in enumerate(listed.colors)}
    for color, mask in colors.items():
        if color not in known_colors and listed.colors and strict:
            raise UserError(f"{mask} has the colour {_say(color)}, which is not in {file}; add it; {_hint([mask])}")
        if color not in known_colors and not listed.colors and (strict or not numbers):
            shown = "; ".join(_say(color) for color in sorted(colors)[:8])
            raise UserError(f"{mask} is in colours, but {file} has none; write `name red green blue` (found: {shown})")
    ignored = listed.ignored or ([] if listed.ignored_colors else [VOID])
    values = islice((value for value in count() if value not in ignored), size)
    known = {value: index for index, value in enumerate(values)} | dict.fromkeys(ignored, VOID)
    greys = {color & 255: index for color, index in known_colors.items() if _is_grey(color)}
    binary = set(numbers) == {0, 255}
    if set(numbers) <= set(greys) and (colors or binary or not set(numbers) <= set(known)):
        known = greys
    elif binary and size == 2 and not listed.ignored:
        known = {0: 0, 255: 1}
    elif binary and not colors and not listed.ignored:  # 255 as void would leave nothing but the background
        raise UserError(
            f"masks of 0 and 255 alone have two classes, but {file} has {size}: list two, or add the line `ignore 255`"
        )
    for value, mask in sorted(numbers.items()):
        if value not in known and strict:
            raise UserError(
                f"{mask} holds the value {value}; {file} has {size} classes, for the values {ranges(known)}: add a "
                f"class, or the line `ignore {value}`; {_hint([mask])}"
            )
    return listed.names, [rgb(color) for color in listed.colors] or list(voc_palette(size)), known, known_colors


def _as_found(numbers: dict, colors: dict, indexed: dict[int, list[int]], path: Path) -> tuple[list, list, dict, dict]:
    """Return names, palette, and what numbers and colours mean, where no classes.txt says so."""
    masks = path / "masks"
    if colors and {value * 0x010101 for value in numbers} <= set(colors):  # a picture all black, saved as grey
        greys, found = list(numbers), colors
    elif colors and numbers:
        raise UserError(
            f"{next(iter(numbers.values()))} holds numbers and {next(iter(colors.values()))} colours; list the classes "
            f"in {path / 'classes.txt'}, each as `name red green blue`"
        )
    else:
        greys, found = [], numbers
    values = sorted(found)
    ignored = [VOID] if not colors and VOID in values and any(0 < value < SMALLEST_GREY for value in values) else []
    values = [value for value in values if value not in ignored]
    files, what = [found[value] for value in values], "colours" if colors else "values"
    in_a_row = values == list(range(len(values)))
    most = MOST if colors else MOST_FOUND if in_a_row else MOST_GREYS
    if len(values) > most or (len(values) > 2 and any(map(_is_jpeg, files))):
        raise UserError(
            f"{masks} holds {len(values)} different {what}, which are classes only if {path / 'classes.txt'} lists "
            f"them, one a line; {_hint(files)}"
        )
    if len(values) < 2:
        raise UserError(f"{masks} holds a single one of all {what}; there must be two classes to tell apart")
    known = {value: index for index, value in enumerate(values)}
    if colors:
        names = [f"#{color:06x}" if color else "background" for color in values]  # black by custom
        return names, [rgb(color) for color in values], {grey: known[grey * 0x010101] for grey in greys}, known
    names = ["background", "foreground"] if values == [0, 255] else [f"class {value}" for value in values]
    own = [indexed.get(value, [0])[0] for value in values]  # the palette's colours, if they tell the classes apart
    useful = len(set(own)) == len(own) and not all(map(_is_grey, own))
    palette = [rgb(color) for color in own] if useful else list(voc_palette(len(values)))
    return names, palette, known | dict.fromkeys(ignored, VOID), {}


def _is_grey(color: int) -> bool:
    return len(set(rgb(color))) == 1


def _is_jpeg(file: Path | str) -> bool:
    return Path(file).suffix.lower() in (".jpg", ".jpeg")


def _hint(files: Iterable[Path | str]) -> str:
    if any(map(_is_jpeg, files)):
        return "a JPEG's compression mixes neighbouring values: save masks as PNG"
    return "are these masks, and are their outlines hard, not smoothed?"


def _say(color: int) -> str:
    return " ".join(map(str, rgb(color)))
