"""Masks that are pictures: what their values and colours stand for, also in JPEGs, and a picture for each class."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from common.datasets.formats.labels import Labels, class_name
from common.datasets.formats.pairs import JPEG
from common.datasets.formats.source import Source
from common.datasets.mask_classes import GREY, Classes, interpret, parse_classes, read_classes
from common.datasets.mask_contents import look_through, smoothed
from common.datasets.reading import NOT_A_MASK, Problem, count_codes, open_image, read_codes, read_text
from common.labels import VOID, LabelMap, rgb

NEAR = 64  # the largest distance, in RGB space, of a JPEG's colour to the listed one that it is taken for
MOST = 0.05  # of a JPEG's pixels that may be near none: those of outlines, which become void

Paint = Callable[[Path, np.ndarray], list[Problem]]  # writes the classes in a file to a mask; returns what is left out


def own_classes(labels: Labels, masks: list[Path], source: Source) -> Paint:
    """Add the classes of masks whose program says nothing of them: listed ones, or all that the masks hold.

    Raises:
        UserError: they hold what the list does not have, or something else than classes.
    """
    listed, problems = read_list(source), []
    if source.binary:
        two = smoothed(look_through([mask for mask in masks if mask.suffix.lower() not in JPEG], progress=True).held)
        return partial(draw_binary, two)
    if any(mask.suffix.lower() in JPEG for mask in masks):
        if not listed.colors:
            listed = Classes(["background", "foreground"], {0: 0, 255 * GREY: 1}, {})
            labels.notes.append("no classes.txt lists the colours of the JPEG masks: white is taken for foreground")
        labels.names, labels.colors = listed.names, {i: rgb(color) for color, i in listed.colors.items() if i != VOID}
        return partial(draw, LabelMap({}, listed.colors, True))
    held, unread, objects = look_through(masks, progress=True)
    for problem in unread:
        if problem.kind == NOT_A_MASK:
            hint = "; or add --binary: all but 0 and transparent pixels are one class"
            raise Problem(NOT_A_MASK, f"{problem}{hint * ('--binary' not in str(problem))}")
    if not listed.names and (two := smoothed(held)):
        a, b = (rgb(color)[0] for color in two)
        sentence = f"{held[0].file} and others hold {len(held)} levels, mostly {a} and {b}: outlines are smoothed; "
        raise Problem("smoothed masks", sentence + "add --binary, which rounds each pixel to the nearer of the two")
    if objects:
        labels.notes.append(f"WARNING: {objects}; if they are objects, import again with --binary: one class for all")
    names, palette, label_map, _ = interpret(held, listed, source.root, problems)
    if problems and (listed.names or not problems[0].lines):
        raise problems[0]
    if not listed.names:
        labels.notes.append("nothing says how the classes are called: their names can be edited in classes.txt")
    if problems:
        values = {h.value for h in held}
        if None not in values and len(values) == len(held):  # one palette in all files: its numbers are the classes
            listed = Classes([f"class {i}" for i in range(max(values - {VOID}) + 1)], {}, {})
        else:
            listed = parse_classes(problems[0].lines, source.root)
        names, palette, label_map, _ = interpret(held, listed, source.root, [])
        if listed.colors and not any(color % GREY for color in listed.colors):  # values with gaps between them
            values = [color & 255 for color, number in listed.colors.items() if number != VOID]
            names, palette = [f"value {v}" if v else "background" for v in values], ()
    labels.names, labels.colors = list(names), dict(enumerate(palette))
    return partial(draw, label_map)


def read_list(source: Source) -> Classes:
    """Return the classes in classes.txt, or in a table with the columns name, r, g and b."""
    listed = read_classes(source.root / "classes.txt")
    for file in source.others if not listed.names else ():
        if file.suffix.lower() == ".csv":
            rows = [row for row in csv.reader(read_text(file).splitlines(), skipinitialspace=True) if row]
            if rows and [word.casefold()[:1] for word in rows[0]] == ["n", "r", "g", "b"]:
                lines = [" ".join([class_name(name), *map(str.strip, color)]) for name, *color in rows[1:]]
                return parse_classes(lines, file)
    return listed


def draw_binary(two: tuple[int, int] | None, file: Path, mask: np.ndarray) -> list[Problem]:
    """Write 1 for all but black and transparent pixels; where two colours were smoothed, for those nearer to one."""
    image = open_image(file)
    if image.mode in ("RGBA", "LA") and all(low == high for low, high in image.getextrema()[:-1]):
        inside = np.asarray(image.getchannel("A")) > 127
    elif two:
        background, other = np.array(sorted(map(rgb, two), key=lambda color: sum(color) > 0))
        pixels = np.asarray(image.convert("RGB")).astype(int)
        inside = ((pixels - other) ** 2).sum(axis=2) < ((pixels - background) ** 2).sum(axis=2)
    else:
        values = np.asarray(image.convert("RGB") if image.mode in ("P", "RGBA", "LA") else image)
        inside = (values > NEAR * (file.suffix.lower() in JPEG)).reshape(*values.shape[:2], -1).any(axis=2)
    check_size(file, inside, mask)
    mask[inside] = 1
    return []


def draw_all(files: list[Path], paint: Paint, mask: np.ndarray) -> list[Problem]:
    """Draw the masks of an image over each other; return what has been left out."""
    problems = []
    for file in files:
        part = np.zeros_like(mask)
        problems += paint(file, part)
        mask[part > 0] = part[part > 0]
    return problems


def draw(label_map: LabelMap, file: Path, mask: np.ndarray) -> list[Problem]:
    """Write the classes of the mask picture `file` to `mask`; return what has been left out."""
    codes, are_colors = read_codes(open_image(file), file, label_map.palettes_are_colors)
    known, jpeg = label_map.colors if are_colors else label_map.numbers, file.suffix.lower() in JPEG
    if not are_colors and (jpeg or not known):  # grey levels as colours
        codes, known = codes * np.uint32(GREY), label_map.colors or {v * GREY: number for v, number in known.items()}
    check_size(file, codes, mask)
    counts = count_codes(codes)
    classes = nearest([*counts], known, file) if jpeg else {code: known[code] for code in counts if code in known}
    table = np.array([classes.get(code, VOID) for code in counts], dtype=np.uint8)
    mask[:] = table[np.searchsorted([*counts], codes)]
    if not (unknown := sum(count for code, count in counts.items() if code not in classes)):
        return []
    sentence = f"{file}: {unknown} of {mask.size} pixels"
    if jpeg and unknown > MOST * mask.size:
        kind = f"JPEG masks with more than {MOST:.0%} of the pixels farther than {NEAR} from every listed colour"
        raise Problem(kind, f"{sentence}; list all colours in a classes.txt, or save masks as PNG")
    far = f"farther than {NEAR} from every listed colour" if jpeg else "of no listed value or colour"
    return [Problem(f"masks with pixels {far}, which become void", sentence)]


def nearest(colors: list[int], known: dict[int, int], file: Path) -> dict[int, int]:
    """Return the class of the nearest known colour for each of `colors` that is no farther than NEAR from it."""
    listed = np.array([rgb(color) for color in known])
    apart = np.linalg.norm(listed[:, None] - listed, axis=2)
    if apart[apart > 0].min() < NEAR / 2:
        sentence = f"{file} has colours that are {apart[apart > 0].min():.0f} apart; save masks as PNG"
        raise Problem("JPEG masks of colours that compression does not keep apart", sentence)
    distances = np.linalg.norm(np.array([rgb(color) for color in colors])[:, None] - listed, axis=2)
    classes = [*known.values()]
    found = zip(colors, distances.argmin(axis=1), distances.min(axis=1) <= NEAR, strict=True)
    return {color: classes[index] for color, index, near in found if near}


def draw_each(files: list[tuple[int, Path]], mask: np.ndarray) -> list[Problem]:
    """Draw pictures that show one class each, the class and the file, onto `mask`; those of more pixels first."""
    found = []
    for number, file in files:
        levels = np.asarray(open_image(file).convert("RGB")).max(axis=2)
        check_size(file, levels, mask)
        inside = levels > (127 if file.suffix.lower() in JPEG else levels.max() // 2)
        found.append((np.count_nonzero(inside), number, inside))
    for _, number, inside in sorted(found, key=lambda item: -item[0]):
        mask[inside] = number
    return []


def check_size(file: Path, pixels: np.ndarray, mask: np.ndarray) -> None:
    """Raise Problem unless the picture in `file` has the size of the image, which is that of `mask`."""
    if pixels.shape != mask.shape:
        (height, width), (image_height, image_width) = pixels.shape, mask.shape
        sentence = f"{file} is {width}x{height} pixels, and its image {image_width}x{image_height}"
        raise Problem("labels for another size than the image has", sentence)
