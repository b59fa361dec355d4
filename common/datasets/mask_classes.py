"""Which classes the masks of a folder hold, with classes.txt or without; folder.py says what the rules are."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.datasets.cache import fingerprint
from common.datasets.reading import distinct, jpeg_hint, open_image, read_codes, read_text
from common.labels import VOID, VOID_COLOR, LabelMap, color_number, rgb, voc_palette
from common.system.errors import UserError
from common.system.files import read_json, write_json

MOST = 255  # classes: a mask has 8 bits a pixel, and VOID is one of its values
MOST_UNLISTED = 200  # smoothed outlines have all values; so many are classes only if classes.txt lists them

# What masks hold, each with a file: values of grey masks; of palette masks, 2**24 times the value plus its colour;
# colours of RGB masks.
KINDS = ("values", "palette", "colors")
Found = dict[str, dict[int, str]]


@dataclass
class Classes:
    """What classes.txt says."""

    names: list[str] = field(default_factory=list)
    colors: list[int] = field(default_factory=list)  # 0xRRGGBB; none, or one for each name
    ignored: list[int] = field(default_factory=list)  # values
    ignored_colors: list[int] = field(default_factory=list)


class Unlisted(UserError):
    """Masks hold what classes.txt must list; `lines` are those that it could have for `colors`."""

    def __init__(self, sentence: str, colors: list[int]):
        super().__init__(sentence)
        names = {0: "background", color_number(VOID_COLOR): "ignore"}
        if 0x010101 in colors:  # 255 beside 1 is no class by custom
            names[0xFFFFFF] = "ignore"
        self.lines = [f"{names.get(color, f'class{i}')} {_say(color)}" for i, color in enumerate(colors[:MOST])]


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
        if "#" in name or any(int(part) > 255 for part in parts if part):
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


def scan(masks: list[tuple[str, Path]], cache_dir: Path, progress: bool) -> Found:
    """Return what occurs in the masks, given by name and path; look through them once, and keep that in `cache_dir`.

    Masks that cannot be read are passed over: whoever decodes them says so.
    """
    record = cache_dir / f"masks-{fingerprint(masks)}.json"
    if known := read_json(record):
        return {kind: {int(code): file for code, file in known[kind].items()} for kind in KINDS}
    found = {kind: {} for kind in KINDS}
    paths = [path for _, path in masks]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = zip(paths, pool.map(_look, paths), strict=True)
        hidden = None if progress else True
        for path, (kind, codes) in tqdm(looks, "looking at masks", len(paths), disable=hidden, leave=False):
            for code in codes:
                found[kind].setdefault(code, str(path))
    write_json(record, found)
    return found


def _look(path: Path) -> tuple[str, list[int]]:
    """Return of which kind a mask is, and what occurs in it; of a photograph the first 1000 colours."""
    try:
        image = open_image(path)
        codes, are_colors = read_codes(image, path)
    except UserError:
        return "values", []
    values = distinct(codes)[:1000]
    if image.mode != "P":
        return "colors" if are_colors else "values", values
    colors = np.array((image.getpalette("RGB") + 768 * [0])[:768]).reshape(-1, 3).tolist()
    return "palette", [(value << 24) + color_number(colors[value]) for value in values]


def interpret(
    found: Found, listed: Classes | None, path: Path, problems: list[UserError]
) -> tuple[tuple, tuple, LabelMap, list[str]]:
    """Return classes, palette and label map of the masks in the folder `path`, and what to say about them.

    What classes.txt should list, and does not, is added to `problems`. If classes cannot be told, all pixels are void.
    """
    listed, file = listed or Classes(), path / "classes.txt"
    numbers, colors = dict(found["values"]), dict(found["colors"])
    indexed = {code & 0xFFFFFF: mask for code, mask in sorted(found["palette"].items())}
    several = len({code >> 24 for code in found["palette"]}) < len(found["palette"])  # palettes: sorted anew in a file
    known_colors = dict.fromkeys(listed.ignored_colors, VOID) | {color: i for i, color in enumerate(listed.colors)}
    every = [value * 0x010101 for value in sorted(numbers) if value < 256] + [*indexed, *sorted(colors)]
    proposed = [color for color in dict.fromkeys(every) if color not in known_colors]
    by_color = (several or indexed.keys() <= known_colors.keys()) if listed.colors else several and not listed.names
    if by_color:
        colors |= indexed
    else:
        numbers |= {code >> 24: mask for code, mask in found["palette"].items()}
    if not listed.colors and all(map(_is_grey, colors)):  # RGB files of grey masks
        numbers |= {color & 255: mask for color, mask in colors.items()}
        colors = {}
    names, classes = listed.names, sorted(numbers.keys() - {VOID})
    hint = next(filter(None, map(jpeg_hint, {**numbers, **colors}.values())), "")
    if len(colors) + len(numbers) > MOST_UNLISTED:
        hint = hint or "; are these masks, and are their outlines hard, not smoothed?"
    binary = not colors and set(numbers) == {0, 255}
    if not names and binary:
        names = ["background", "foreground"]
    elif not names and not (colors or hint) and classes == list(range(len(classes))) and len(classes) >= 2:
        names = [f"class {value}" for value in classes]
    known = _values(set(numbers), names, listed, known_colors) if names else {}

    wrong = [(_say(color), colors[color]) for color in sorted(colors.keys() - known_colors.keys())]
    what, how = ("colour", "") if wrong else ("value", "`name` (the lines stand for 0, 1, 2, ...) or ")
    if wrong := wrong or [(str(value), numbers[value]) for value in sorted(numbers.keys() - known.keys())]:
        what += f"{'s' * (len(wrong) > 1)} {'; '.join(code for code, _ in wrong[:8])}{'; ...' * (len(wrong) > 8)}"
        sentence = f"{wrong[0][1]} holds the {what}, which {file} must list, each as {how}`name red green blue`{hint}"
        of_names = listed.names and not listed.colors and not colors  # then a line with a colour does not fit
        problems.append(Unlisted(sentence, [] if hint or of_names else proposed))
    if not names:
        void = LabelMap(dict.fromkeys([*range(256), *numbers], VOID), dict.fromkeys(proposed, VOID), by_color)
        return (), (), void, []
    greys = {value * 0x010101: index for value, index in known.items() if value < 256}
    palette = [rgb(color) for color in listed.colors] or voc_palette(len(names))
    notes = []
    if binary and known[255] == 1:
        notes = [f"masks of 0 and 255 alone: a binary task, in which 0 is {names[0]!r} and 255 {names[1]!r}"]
    elif not listed.names:
        notes = [f"the masks hold {len(names)} classes, from 0; {VOID} is ignored (classes.txt can name them)"]
    return tuple(names), tuple(palette), LabelMap(known, greys | known_colors, by_color), notes


def _values(values: set[int], names: list, listed: Classes, known_colors: dict[int, int]) -> dict[int, int]:
    """Return what the values of masks mean: the grey colours in classes.txt, if all are there, or else its lines."""
    ignored = dict.fromkeys(listed.ignored or ([] if listed.ignored_colors else [VOID]), VOID)
    greys = ignored | {color & 255: index for color, index in known_colors.items() if _is_grey(color)}
    if listed.colors and values <= greys.keys():
        return greys
    if values == {0, 255} and len(names) == 2 and not listed.ignored:
        return {0: 0, 255: 1}
    lines = islice((value for value in count() if value not in ignored), len(names))
    return {value: index for index, value in enumerate(lines)} | ignored


def _is_grey(color: int) -> bool:
    return len(set(rgb(color))) == 1


def _say(color: int) -> str:
    return " ".join(map(str, rgb(color)))
