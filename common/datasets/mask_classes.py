"""Which classes the masks of a folder hold, with classes.txt or without; folder.py says what the rules are."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.datasets.cache import fingerprint
from common.datasets.reading import Problem, distinct, jpeg_hint, open_image, read_codes, read_text
from common.labels import VOID, VOID_COLOR, LabelMap, color_number, rgb, voc_palette
from common.system.errors import UserError
from common.system.files import read_json, write_json

MOST = 255  # classes: a mask has 8 bits a pixel, and VOID is one of its values
MOST_UNLISTED = 200  # smoothed outlines have all values; so many are classes only if classes.txt lists them
GREY = 0x010101  # times v is the grey (v, v, v): colours are numbers here, 0xRRGGBB

# What masks hold, each with a file: values of grey masks; of palette masks, 2**24 times the value plus its colour;
# colours of RGB masks.
KINDS = ("values", "palette", "colors")
Found = dict[str, dict[int, str]]


@dataclass
class Classes:
    """What classes.txt says."""

    names: list[str] = field(default_factory=list)
    colors: dict[int, int] = field(default_factory=dict)  # colour -> class or VOID
    ignored: dict[int, int] = field(default_factory=dict)  # value -> VOID


def read_classes(file: Path) -> Classes:
    """Return what `file` says; nothing if it is not there.

    Raises:
        UserError: a line that cannot be understood, or repeats one before; less than two classes; no UTF-8.
    """
    classes = Classes()
    if not file.is_file():
        return classes
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        place = f"{file}, line {number}, {line.strip()!r},"
        words, color, parts = line.replace(",", " ").split(), None, []
        if not words:
            continue
        if re.fullmatch("#[0-9a-fA-F]{6}", words[-1]):
            color = int(words.pop()[1:], 16)
        elif len(words) > 2 and all(map(str.isdecimal, words[-3:])):
            parts = [int(words.pop()) for _ in range(3)]
            color = color_number(parts[::-1])
        name = " ".join(words)
        ignored = re.fullmatch(r"ignore (\d+)", name)
        parts = [int(ignored[1])] if ignored else parts
        if not name or "#" in name or max(parts, default=0) > 255 or (name == "ignore" and color is None):
            raise UserError(f"{place} is no class; write `name`, `name 0 128 255`, `name #0080ff` or `ignore 255`")
        if name in classes.names or color in classes.colors:
            raise UserError(f"{place} has the name or the colour of a line before; each class needs its own")
        if ignored:
            classes.ignored[parts[0]] = VOID
            continue
        if color is not None:
            classes.colors[color] = VOID if name == "ignore" else len(classes.names)
        if name != "ignore":
            classes.names.append(name)
    if not 2 <= len(classes.names) <= MOST:
        raise UserError(f"{file} names {len(classes.names)} classes; there can be 2 to {MOST}, one a line")
    if 0 < sum(index != VOID for index in classes.colors.values()) < len(classes.names):
        raise UserError(f"{file} gives some classes a colour and others none; give every class a colour, or none")
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
        looks, hidden = pool.map(_look, paths), None if progress else True
        looks = tqdm(looks, "looking at masks", len(paths), disable=hidden, leave=False)
        for path, (kind, codes) in zip(paths, looks, strict=True):
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
    found: Found, listed: Classes, path: Path, problems: list[UserError]
) -> tuple[tuple, tuple, LabelMap, list[str]]:
    """Return classes, palette and label map of the masks in the folder `path`, and what to say about them.

    What classes.txt should list, and does not, is added to `problems`. If classes cannot be told, all pixels are void.
    """
    values, colors, palettes_are_colors = _values_and_colors(found, listed)
    files = [*values.values(), *colors.values()]
    hint = next(filter(None, map(jpeg_hint, files)), "")
    if len(files) > MOST_UNLISTED and not hint:
        hint = "; are these masks, and are their outlines hard, not smoothed?"
    names, known, notes = listed.names, {}, []
    if names or not (colors or hint):
        names, known, notes = _classes_of(values.keys(), listed)

    what, wrong = "colours", {_say(color): colors[color] for color in sorted(colors.keys() - listed.colors.keys())}
    if not wrong:
        what, wrong = "values", {str(value): values[value] for value in sorted(values.keys() - known.keys())}
    if wrong:
        some = f"{'; '.join([*wrong][:8])}{'; ...' * (len(wrong) > 8)} (the first in {next(iter(wrong.values()))})"
        by_name = listed.names and not listed.colors and not colors
        how = "each as `name`" if by_name else "each as `name red green blue`"
        if what == "values" and not listed.names:
            how = f"by a `name` a line for each of 0 to {max(values.keys() - {VOID}, default=0)}, or {how}"
        sentence = f"the masks hold the {what} {some}, which {path / 'classes.txt'} must list, {how}{hint}"
        lines = [] if by_name or hint else _lines(found, listed)
        problems.append(Problem("what classes.txt lacks, and lines for it", sentence, lines))
    if not names:
        return (), (), LabelMap(dict.fromkeys(range(256), VOID), dict.fromkeys(colors, VOID), palettes_are_colors), []
    palette = [rgb(color) for color, index in listed.colors.items() if index != VOID] or voc_palette(len(names))
    greys = {value * GREY: index for value, index in known.items()}  # as RGB files have them
    return tuple(names), tuple(palette), LabelMap(known, greys | listed.colors, palettes_are_colors), notes


def _values_and_colors(found: Found, listed: Classes) -> tuple[dict[int, str], dict[int, str], bool]:
    """Return the values and the colours in the masks, and whether those of palette masks are among the colours.

    They are if classes.txt lists them all, or if palettes differ: then each file has numbers of its own.
    """
    values, colors = dict(found["values"]), dict(found["colors"])
    by_value = {code >> 24: file for code, file in found["palette"].items()}
    by_color = {code & 0xFFFFFF: file for code, file in found["palette"].items()}
    differ = len(by_value) < len(found["palette"])
    palettes_are_colors = differ or (bool(listed.colors) and by_color.keys() <= listed.colors.keys())
    if palettes_are_colors:
        colors |= by_color
    else:
        values |= by_value
    if not listed.colors and not any(color % GREY for color in colors):  # RGB files of grey masks
        values |= {color & 255: file for color, file in colors.items()}
        colors = {}
    return values, colors, palettes_are_colors


def _classes_of(values: set[int], listed: Classes) -> tuple[list[str], dict[int, int], list[str]]:
    """Return the classes' names, the class or VOID of each value, and what to say; folder.py tells the rules."""
    ignored = listed.ignored or {VOID: VOID}
    # 1. classes.txt lists colours, and these values are greys among them.
    greys = ignored | {color & 255: index for color, index in listed.colors.items() if color % GREY == 0}
    if listed.colors and values <= greys.keys():
        return listed.names, greys, []
    # 2. 0 and 255 alone are a binary task.
    if values == {0, 255} and len(listed.names) in (0, 2) and not listed.ignored:
        names = listed.names or ["background", "foreground"]
        note = f"masks of 0 and 255 alone: a binary task, in which 0 is {names[0]!r} and 255 {names[1]!r}"
        return names, {0: 0, 255: 1}, [note]
    # 3. The lines of classes.txt stand for 0, 1, 2, ...
    if listed.names:
        lines = [value for value in range(256) if value not in ignored]
        return listed.names, dict(zip(lines, range(len(listed.names)), strict=False)) | ignored, []
    # 4. Without classes.txt, the masks hold 0, 1, 2, ... and perhaps 255.
    count = len(values - {VOID})
    if count < 2 or values - {VOID} != set(range(count)):
        return [], {}, []
    note = f"the masks hold {count} classes, from 0; {VOID} is ignored (classes.txt can name them)"
    return [f"class {i}" for i in range(count)], {i: i for i in [*range(count), VOID]}, [note]


def _lines(found: Found, listed: Classes) -> list[str]:
    """Return lines that classes.txt could have for all colours in the masks that it does not list."""
    colors = [value * GREY for value in sorted(found["values"])]
    colors += [code & 0xFFFFFF for code in sorted(found["palette"])] + sorted(found["colors"])
    colors = [color for color in dict.fromkeys(colors) if color not in listed.colors][:MOST]
    names = {0: "background", color_number(VOID_COLOR): "ignore"}
    return [f"{names.get(color, f'class{i}')} {_say(color)}" for i, color in enumerate(colors)]


def _say(color: int) -> str:
    return " ".join(map(str, rgb(color)))
