"""Read masks that are pictures: find their classes from values and colours, also in JPEGs, and draw them."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from common.datasets.formats.labels import Labels, class_name
from common.datasets.formats.pairs import JPEG
from common.datasets.formats.source import Source
from common.datasets.mask_classes import GREY, Classes, interpret, parse_classes, read_classes
from common.datasets.mask_contents import Held, look_through, smoothed
from common.datasets.reading import NOT_A_MASK, Problem, count_codes, open_image, read_codes, read_text
from common.labels import VOID, LabelMap, rgb

NEAR = 64  # largest distance in RGB space between a JPEG's colour and the listed colour that it stands for
MOST = 0.05  # share of a JPEG's pixels that may be near no colour: pixels on outlines, which become void

Paint = Callable[[Path, np.ndarray], list[Problem]]  # draws the classes in a file onto a mask (H, W)


def own_classes(labels: Labels, masks: list[Path], source: Source) -> Paint:
    """Add the classes of masks to `labels`, from a list of classes or from the masks; return how to draw a mask.

    Raises:
        UserError: the masks hold values that the list lacks, or something other than classes.
    """
    if source.binary:
        two = smoothed(look_through([mask for mask in masks if mask.suffix.lower() not in JPEG], progress=True).held)
        return partial(draw_binary, two)
    listed = read_list(source)
    if any(mask.suffix.lower() in JPEG for mask in masks):
        if not listed.colors:
            listed = Classes(["background", "foreground"], {0: 0, 255 * GREY: 1}, {})
            labels.notes.append("no classes.txt lists the colours of the JPEG masks: white is taken for foreground")
        labels.names, labels.colors = listed.names, {i: rgb(color) for color, i in listed.colors.items() if i != VOID}
        return partial(draw, LabelMap({}, listed.colors, True))
    held, unread, objects = look_through(masks, progress=True)
    if wrong := next((problem for problem in unread if problem.kind == NOT_A_MASK), None):
        hint = "; or add --binary: all pixels but 0 and transparent ones become one class"
        raise Problem(NOT_A_MASK, f"{wrong}{hint * ('--binary' not in str(wrong))}")
    if not listed.names and (two := smoothed(held)):
        a, b = (rgb(color)[0] for color in two)
        sentence = f"{held[0].file} and others hold {len(held)} levels, mostly {a} and {b}: outlines are smoothed; "
        raise Problem("smoothed masks", sentence + "add --binary, which rounds each pixel to the nearer of the two")
    total, grey = sum(h.pixels for h in held), all(h.value is None and h.color % GREY == 0 for h in held)
    rare = sum(h.pixels < 0.001 * total for h in held)
    if not listed.names and grey and rare > 20 and 2 * rare > len(held):
        sentence = f"{held[0].file} and others hold {len(held)} values, most of them rare: outlines are smoothed; "
        raise Problem("smoothed masks", sentence + "save masks with hard outlines, or list the classes in classes.txt")
    if objects:
        labels.notes.append(
            f"WARNING: {objects}; if they are objects, import into a new folder with --binary: one class for all"
        )
    problems = []
    names, palette, label_map, _ = interpret(held, listed, source.root, problems)
    if problems and (listed.names or not problems[0].lines):
        raise problems[0]
    if problems:
        names, palette, label_map = invented_classes(held, problems[0].lines, source.root)
    if not listed.names:
        labels.notes.append("the export does not name the classes: you can edit their names in classes.txt")
    labels.names, labels.colors = list(names), dict(enumerate(palette))
    return partial(draw, label_map)


def invented_classes(held: list[Held], lines: list[str], root: Path) -> tuple[list[str], tuple, LabelMap]:
    """Return names, palette and label map if no list names the values of the masks, and they are not 0, 1, 2, ..."""
    values = {h.value for h in held}
    if None not in values and len(values) == len(held):  # all files have one palette: its numbers are the classes
        listed = Classes([f"class {i}" for i in range(max(values - {VOID}) + 1)], {}, {})
    else:
        listed = parse_classes(lines, root)
    names, palette, label_map, _ = interpret(held, listed, root, [])
    if listed.colors and not any(color % GREY for color in listed.colors):  # grey values with gaps between them
        values = [color & 255 for color, number in listed.colors.items() if number != VOID]
        names, palette = [f"value {value}" if value else "background" for value in values], ()
    return names, palette, label_map


def read_list(source: Source) -> Classes:
    """Return the classes in classes.txt, or in a CSV file with the columns name, r, g and b."""
    listed = read_classes(source.root / "classes.txt")
    for file in source.others if not listed.names else ():
        if file.suffix.lower() == ".csv":
            rows = [row for row in csv.reader(read_text(file).splitlines(), skipinitialspace=True) if row]
            if rows and [word.casefold()[:1] for word in rows[0]] == ["n", "r", "g", "b"]:
                return parse_classes([" ".join([class_name(name), *color]) for name, *color in rows[1:]], file)
    return listed


def draw_binary(two: tuple[int, int] | None, file: Path, mask: np.ndarray) -> list[Problem]:
    """Write 1 to `mask` where the picture is neither black nor transparent.

    Args:
        two: the original colours of smoothed masks; each pixel takes the nearer of them.
    """
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
    """Draw the masks of an image over each other."""
    problems = []
    for file in files:
        part = np.zeros_like(mask)
        problems += paint(file, part)
        mask[part > 0] = part[part > 0]
    return problems


def draw(label_map: LabelMap, file: Path, mask: np.ndarray) -> list[Problem]:
    """Write the classes in the picture `file` to `mask`; return a problem if some pixels become void."""
    codes, are_colors = read_codes(open_image(file), file, label_map.palettes_are_colors)
    known, jpeg = label_map.colors if are_colors else label_map.numbers, file.suffix.lower() in JPEG
    if not are_colors and (jpeg or not known):  # compare grey levels as colours
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
    """Return the class of the nearest known colour for each of `colors`; omit colours farther than NEAR from all."""
    listed = np.array([rgb(color) for color in known])
    apart = np.linalg.norm(listed[:, None] - listed, axis=2)
    if (least := apart[apart > 0].min()) < NEAR / 2:
        kind = "JPEG masks of colours that compression does not keep apart"
        raise Problem(kind, f"{file} has colours that are {least:.0f} apart; save masks as PNG")
    distances = np.linalg.norm(np.array([rgb(color) for color in colors])[:, None] - listed, axis=2)
    classes = [*known.values()]
    found = zip(colors, distances.argmin(axis=1), distances.min(axis=1) <= NEAR, strict=True)
    return {color: classes[index] for color, index, near in found if near}


def draw_each(files: list[tuple[int, Path]], mask: np.ndarray) -> list[Problem]:
    """Draw pictures that show one class each, given as (class, file). Small areas cover large ones."""
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
    """Raise Problem unless the picture in `file` has the size of its image, which is the size of `mask`."""
    if pixels.shape != mask.shape:
        (height, width), (image_height, image_width) = pixels.shape, mask.shape
        sentence = f"{file} is {width}x{height} pixels, and its image {image_width}x{image_height}"
        raise Problem("labels for another size than the image has", sentence)
