"""Read classes.txt and map the values or colours in a folder's masks to classes.

The docstring of folder.py gives the rules. A colour is one number here, 0xRRGGBB.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from common.datasets.listing import import_command
from common.datasets.mask_contents import GREY, Held, smoothed
from common.datasets.reading import Problem, jpeg_hint, read_text
from common.labels import VOID, VOID_COLOR, LabelMap, color_number, rgb, voc_palette
from common.system.errors import UserError

MANY = 200  # more classes need a classes.txt: smoothed outlines have as many values
BINARY = {0: 0, 255 * GREY: 1}  # colour -> class in masks with only 0 and 255


class Classes(NamedTuple):
    """The content of classes.txt."""

    names: list[str]
    colors: dict[int, int]  # colour -> class or VOID
    ignored: dict[int, int]  # value -> VOID


def read_classes(file: Path) -> Classes:
    """Parse `file`, if it exists; raise UserError on a line that cannot be understood."""
    return parse_classes(read_text(file).splitlines(), file) if file.is_file() else Classes([], {}, {})


def parse_classes(lines: Iterable[str], file: Path) -> Classes:
    """Parse the lines of `file`; raise UserError on a line that cannot be understood."""
    names, colors, ignored = listed = Classes([], {}, {})
    for place, line in enumerate(lines, start=1):
        words = re.sub(r"^\s*#.*|\s#(\s.*|$)", "", line).replace(",", " ").split()  # without a comment
        if not words:
            continue
        numbers = []  # red, green and blue, or one void value
        if re.fullmatch("#[0-9a-fA-F]{6}", words[-1]):
            numbers = rgb(int(words.pop()[1:], 16))
        elif len(words) > 2 and all(map(str.isdecimal, words[-3:])):
            words, numbers = words[:-3], [int(word) for word in words[-3:]]
        elif re.fullmatch(r"ignore \d+", " ".join(words)):
            words, numbers = words[:1], [int(words[1])]
        name, color = " ".join(words), color_number(numbers) if len(numbers) == 3 else None
        where = f"{file}, line {place}, {line.strip()!r},"
        if not name or "#" in name or (name == "ignore" and not numbers) or max(numbers, default=0) > 255:
            raise UserError(f"{where} is no class; write `name`, `name 0 128 255`, `name #0080ff` or `ignore 255`")
        if name in names or color in colors:
            raise UserError(f"{where} repeats the name or colour of an earlier line; each class needs its own")
        if color is not None:
            colors[color] = VOID if name == "ignore" else len(names)
        elif numbers:
            ignored[numbers[0]] = VOID
        if name != "ignore":
            names.append(name)
    if not 2 <= len(names) <= VOID:
        raise UserError(f"{file} names {len(names)} classes; there can be 2 to {VOID}, one a line")
    if 0 < sum(index != VOID for index in colors.values()) < len(names):
        raise UserError(f"{file} gives some classes a colour and others none; give every class a colour, or none")
    return listed


def interpret(held: list[Held], listed: Classes, path: Path, problems: list[UserError]) -> tuple:
    """Return names, palette and label map of the classes in the folder `path`, and notes for the screen.

    Choose the interpretation with the fewest unknown values. If unknown values remain, add a problem; without
    classes.txt there are then no classes, and all pixels are void.
    """
    found = {h.color for h in held}
    unknown, names, table, by_color = min(_readings(held, listed), key=lambda reading: len(reading[0]))
    hint = next((f"{jpeg}, or try {import_command(path)}" for h in held if (jpeg := jpeg_hint(h.file))), "")
    if not hint and (unknown or not listed.names) and (two := smoothed(held)):
        hint = f"; their outlines look smoothed between {' and '.join(map(_say, two))}"
        hint += f"; {import_command(path, '--binary')} rounds each pixel to the nearer of these two"
    if not hint and max(len(names), len(unknown)) > MANY:
        hint = "; are these masks, and are their outlines hard, not smoothed?"
    if not listed.names and (unknown or hint or len(names) < 2):
        unknown, names = unknown or {h.color: h for h in held}, []
        table = dict.fromkeys([*range(0, 256 * GREY, GREY), *found], VOID)
    if unknown:
        in_color = any(color % GREY for color in unknown)
        codes = [_say(color) if in_color else str(color & 255) for color in sorted(unknown)]
        some = f"{'colours' if in_color else 'values'} {'; '.join(codes[:8])}{'; ...' * (len(codes) > 8)}"
        some = f"the masks hold the {some} (the first in {unknown[min(unknown)].file})"
        by_number = listed.names and not listed.colors and not in_color
        lines = [] if hint or by_number else _propose(held, listed)
        how = ", with one name for each of 0, 1, 2, ..." * (not in_color)
        how += f", or with a name and its grey, such as `name {_say(max(unknown))}`" * bool(by_number)
        how += f"; `python -m tools.check {path}` proposes lines" * bool(lines)
        how += "; no mask shows an object" * (found == {0})
        if len(found) > 8 and not in_color:
            how += f"; if each number is an object, {import_command(path, '--binary')} makes them one class"
        sentence = some + (hint or f", which {path / 'classes.txt'} must list{how}")
        problems.append(Problem("values or colours that classes.txt does not list", sentence, lines))
    palette = [rgb(color) for color, index in listed.colors.items() if index != VOID] or voc_palette(len(names))
    note = "the masks hold only 0 and 255: a binary task; 0 is {!r} and 255 is {!r}"
    notes = [note.format(*names)] if table == BINARY else []
    numbers = {color & 255: index for color, index in table.items() if color % GREY == 0}
    return tuple(names), tuple(palette), LabelMap(numbers, table, by_color), notes


def _readings(held: list[Held], listed: Classes) -> Iterator[tuple[dict[int, Held], list[str], dict[int, int], bool]]:
    """Yield interpretations: unknown values, class names, class of each colour, whether palettes are read by colour."""
    palettes = {(h.value, h.color) for h in held if h.value is not None}
    differ = len(dict(palettes)) < len(palettes)  # each file has its own palette, as PNG optimizers write them
    ignored = {value * GREY: VOID for value in listed.ignored or [VOID]}
    grey = not any(color % GREY for color, index in listed.colors.items() if index != VOID)
    for by_color in [True] * bool(differ or listed.colors) + [False] * (not differ):
        found = {h.color if by_color or h.value is None else h.value * GREY: h for h in held}
        ways = [(listed.names, (ignored if listed.ignored or grey else {}) | listed.colors)] if listed.colors else []
        if found.keys() == BINARY.keys() and len(listed.names) in (0, 2) and not listed.ignored:
            ways.append((listed.names or ["background", "foreground"], BINARY))
        names = listed.names or [f"class {i}" for i in range(len({color & 255 for color in found} - {VOID}))]
        values = (value * GREY for value in range(256) if value * GREY not in ignored)
        ways.append((names, dict(zip(values, range(len(names)), strict=False)) | ignored))
        for names, table in ways:
            yield {color: h for color, h in found.items() if color not in table}, names, table, by_color


def _propose(held: list[Held], listed: Classes) -> list[str]:
    """Return lines for the colours that classes.txt lacks, each with its share of the pixels."""
    pixels, names = Counter(), {0: "background", color_number(VOID_COLOR): "ignore"}
    for h in held:
        pixels[h.color] += h.pixels
    colors, comment = sorted(pixels.keys() - listed.colors.keys()), "  # {:.2%} of the pixels"
    lines = [f"{names.get(color, f'class{i}')} {_say(color)}" for i, color in enumerate(colors, len(listed.names))]
    return [line + comment.format(pixels[color] / pixels.total()) for line, color in zip(lines, colors, strict=True)]


def _say(color: int) -> str:
    return " ".join(map(str, rgb(color)))
