"""Read classes.txt and map the values or colours in a folder's masks to classes.

The docstring of folder.py gives the rules. A colour is one number here, 0xRRGGBB.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import NamedTuple

from common.datasets.listing import import_command
from common.datasets.mask_contents import GREY, Held, smoothed
from common.datasets.reading import Problem, jpeg_hint, read_text
from common.labels import VOID, VOID_COLOR, LabelMap, color_number, rgb, voc_palette
from common.system.errors import UserError

MANY = 200  # more values without a classes.txt probably come from smoothed outlines
BINARY = {0: 0, 255 * GREY: 1}  # colour -> class in masks with only 0 and 255


class Classes(NamedTuple):
    """The content of classes.txt."""

    names: list[str]
    colors: dict[int, int]  # colour -> class or VOID
    ignored: dict[int, int]  # value -> VOID


class Reading(NamedTuple):
    """One way to read the masks."""

    names: list[str]  # of the classes
    table: dict[int, int]  # colour -> class or VOID
    by_color: bool  # palette masks are read by their colours, not by their values
    unknown: dict[int, Held]  # colours in the masks that `table` lacks


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
        name, numbers = _parse_line(words)
        color = color_number(numbers) if len(numbers) == 3 else None
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


def _parse_line(words: list[str]) -> tuple[str, list[int]]:
    """Return the name in a line, and its numbers: red, green and blue, or one void value, or none."""
    numbers = []
    if re.fullmatch("#[0-9a-fA-F]{6}", words[-1]):
        words, numbers = words[:-1], rgb(int(words[-1][1:], 16))
    elif len(words) > 2 and all(map(str.isdecimal, words[-3:])):
        words, numbers = words[:-3], words[-3:]
    elif len(words) == 2 and words[0] == "ignore" and words[1].isdecimal():
        words, numbers = words[:1], words[1:]
    return " ".join(words), [int(number) for number in numbers]


def interpret(held: list[Held], listed: Classes, path: Path, problems: list[UserError]) -> tuple:
    """Return names, palette and label map of the classes in the folder `path`, and notes for the screen.

    If unknown values remain, a problem is added. If there is no classes.txt either, there are no classes and all pixels
    are void.
    """
    reading = choose_reading(held, listed)
    hint = _hint(held, listed, reading, path)
    if not listed.names and (reading.unknown or hint or len(reading.names) < 2):
        found = {h.color: h for h in held}
        void = dict.fromkeys([*range(0, 256 * GREY, GREY), *found], VOID)
        reading = Reading([], void, reading.by_color, reading.unknown or found)
    if reading.unknown:
        problems.append(_unknown_problem(reading.unknown, held, listed, hint, path))
    names, table = reading.names, reading.table
    palette = [rgb(color) for color, index in listed.colors.items() if index != VOID] or voc_palette(len(names))
    note = "the masks hold only 0 and 255: a binary task; 0 is {!r} and 255 is {!r}"
    notes = [note.format(*names)] if table == BINARY else []
    numbers = {color & 255: index for color, index in table.items() if color % GREY == 0}
    return tuple(names), tuple(palette), LabelMap(numbers, table, reading.by_color), notes


def choose_reading(held: list[Held], listed: Classes) -> Reading:
    """Return the reading with the fewest unknown values."""
    palettes, readings = {(h.value, h.color) for h in held if h.value is not None}, []
    differ = len(dict(palettes)) < len(palettes)  # a number has different colours in different files
    for by_color in [True] if differ else [True, False] if listed.colors else [False]:
        found = {h.color if by_color or h.value is None else h.value * GREY: h for h in held}
        for names, table in _tables(found.keys(), listed):
            unknown = {color: h for color, h in found.items() if color not in table}
            readings.append(Reading(names, table, by_color, unknown))
    return min(readings, key=lambda reading: len(reading.unknown))


def _tables(found: Set[int], listed: Classes) -> Iterator[tuple[list[str], dict[int, int]]]:
    """Yield candidates for the class names and the class of each colour: listed, binary, plain values."""
    ignored = {value * GREY: VOID for value in listed.ignored or [VOID]}
    if listed.colors:
        grey = all(color % GREY == 0 for color, index in listed.colors.items() if index != VOID)
        yield listed.names, (ignored if listed.ignored or grey else {}) | listed.colors
    if found == BINARY.keys() and len(listed.names) in (0, 2) and not listed.ignored:
        yield listed.names or ["background", "foreground"], BINARY
    names = listed.names or [f"class {i}" for i in range(len({color & 255 for color in found} - {VOID}))]
    values = [value * GREY for value in range(256) if value * GREY not in ignored]
    yield names, {value: index for index, value in enumerate(values[: len(names)])} | ignored


def _hint(held: list[Held], listed: Classes, reading: Reading, path: Path) -> str:
    """Return the likely reason for wrong values, with a remedy; "" if there is none."""
    for h in held:
        if jpeg := jpeg_hint(h.file):
            return f"{jpeg}, or try {import_command(path)}"
    if (reading.unknown or not listed.names) and (two := smoothed(held)):
        command = import_command(path, "--binary")
        outlines = f"their outlines look smoothed between {' and '.join(map(_say, two))}"
        return f"; {outlines}; {command} rounds each pixel to the nearer of these two"
    many = max(len(reading.names), len(reading.unknown)) > MANY
    return "; are these masks, and are their outlines hard, not smoothed?" if many else ""


def _unknown_problem(unknown: dict[int, Held], held: list[Held], listed: Classes, hint: str, path: Path) -> Problem:
    """Return the problem that names the `unknown` colours, and the hint or the lines that classes.txt needs."""
    found, in_color = {h.color for h in held}, any(color % GREY for color in unknown)
    codes = [_say(color) if in_color else str(color & 255) for color in sorted(unknown)]
    some = f"{'colours' if in_color else 'values'} {'; '.join(codes[:8])}{'; ...' * (len(codes) > 8)}"
    sentence = f"the masks hold the {some} (the first in {unknown[min(unknown)].file})"
    kind = "values or colours that classes.txt does not list"
    if hint:
        return Problem(kind, sentence + hint)
    sentence += f", which {path / 'classes.txt'} must list"
    by_number = listed.names and not listed.colors and not in_color
    lines = [] if by_number else _propose(held, listed)
    if not in_color:
        sentence += ", with one name for each of 0, 1, 2, ..."
    if by_number:
        sentence += f", or with a name and its grey, such as `name {_say(max(unknown))}`"
    if lines:
        sentence += f"; `python -m tools.check {path}` proposes lines"
    if found == {0}:
        sentence += "; no mask shows an object"
    if len(found) > 8 and not in_color:
        sentence += f"; if each number is an object, {import_command(path, '--binary')} makes them one class"
    return Problem(kind, sentence, lines)


def _propose(held: list[Held], listed: Classes) -> list[str]:
    """Return lines for the colours that classes.txt lacks, each with its share of the pixels and its palette number."""
    pixels, names = Counter(), {0: "background", color_number(VOID_COLOR): "ignore"}
    for h in held:
        pixels[h.color] += h.pixels
    numbers = {h.color: h.value for h in held}
    if not len({*numbers.values()}) == len(numbers) == len(held):  # palettes that differ from file to file
        numbers = dict.fromkeys(numbers)
    colors = sorted(pixels.keys() - listed.colors.keys(), key=lambda color: (numbers[color] or 0, color))
    lines = []
    for i, color in enumerate(colors, len(listed.names)):
        line = f"{names.get(color, f'class{i}')} {_say(color)}  # {pixels[color] / pixels.total():.2%} of the pixels"
        lines.append(line + (f", palette number {numbers[color]}" if numbers[color] is not None else ""))
    return lines


def _say(color: int) -> str:
    return " ".join(map(str, rgb(color)))
