"""Is this data as it should be? Every image and mask is read, and the first fault of each is told, all at once.

    python -m tools.check voc2012                       # a set that download.py has fetched
    python -m tools.check path/to/folder                # your own images and masks
    python -m tools.check path/to/folder --write-classes

Ends with status 0 if all is well, 1 if there is something to think about (an image in two splits, a class that a split
lacks, a mask of nothing but background, an image that EXIF turns upside down and its mask not), and 2 if a training
would refuse the data.
"""

import hashlib
import os
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.cli import cli
from common.datasets import DATASETS, spec_of
from common.datasets.folder import inspect
from common.datasets.formats.recognise import recognise
from common.datasets.formats.source import Source
from common.datasets.listing import import_command
from common.datasets.reading import Problem, header
from common.datasets.segmentation_set import DatasetSpec
from common.labels import VOID
from common.run import Run
from common.system.errors import UserError
from common.system.files import write_text

HEAD = "# One class a line; `ignore` in place of a name is for pixels that are neither trained on nor scored."
MODES = {  # Pillow's, of image files
    "1": "black and white",
    "CMYK": "CMYK, the four inks of print, converted to RGB",
    "I;16": "grey of 16 bits, of which 8 are used",
    "LA": "grey and transparency, which is left out",
    "P": "a palette of colours, converted to RGB",
    "RGB of 4 channels": "RGB and a fourth channel, which is left out",
    "RGBA": "RGB and transparency, which is left out",
}
FEW = 5  # images; a score on fewer changes with each of them


@dataclass
class Found:
    """What reading a sample has shown."""

    split: str
    name: str
    problem: UserError | None = None  # why it cannot be used
    counts: np.ndarray | None = None  # pixels (256,) of each mask value; None if it has no mask
    digest: str = ""  # of the decoded image
    mode: str = "RGB"  # Pillow's, of the image file
    turned: bool = False  # by its EXIF orientation, and its mask is not


def main(
    dataset: str,  # name of a set, or a folder with images/ and masks/
    data_root: Path = Path("data"),  # folder that download.py filled
    cache_dir: Path = Path(".cache"),  # folder for what was found out about masks of your own
    show: int = 5,  # sentences of each kind that are printed
    write_classes: bool = False,  # write the classes.txt that a folder could have, to be edited
):
    """Read everything, print what was found, exit with the status that the docstring tells."""
    errors, found, doubts, path = [], [], {}, Path(dataset).expanduser()
    own, file = dataset not in DATASETS and path.is_dir(), path / "classes.txt"
    if write_classes and (not own or file.exists()):
        reason = "is there already; move it away" if own else "is of folders with images/ and masks/; name one"
        raise UserError(f"--write-classes: {file if own else 'classes.txt'} {reason}")
    try:
        spec = inspect(path, cache_dir, errors) if own else spec_of(dataset, Run(data_root=data_root))
        for note in spec.notes:
            print(f"note: {note}")
        found = read_all(spec, dataset)
        doubts = doubts_of(found, spec)
        if spec.classes:  # it is known what the masks mean
            print(class_table(found, spec))
    except UserError as error:
        print("nothing could be read:")
        errors.append(error)
    problems = defaultdict(list)
    told = [*errors, *(item.problem for item in found if item.problem)]
    for problem in {str(problem): problem for problem in told}.values():  # damaged masks have been looked at before
        kind, lines = (problem.kind, problem.lines) if isinstance(problem, Problem) else ("other problems", [])
        problems[kind].append("\n      ".join([str(problem), *lines]))
    for title, groups in (("problems", problems), ("to think about", doubts)):
        for kind, sentences in groups.items():
            print(f"\n{title} ({len(sentences)}): {kind}")
            print("\n".join(f"  {sentence}" for sentence in sentences[:show]))
            if len(sentences) > show:
                print(f"  and {len(sentences) - show} more (--show {len(sentences)} prints all)")
    if own and problems and (hint := way_on(path)):
        print(f"\n{hint}")
    counts = [sum(map(len, groups.values())) for groups in (problems, doubts)]
    print(f"\n{dataset}: {len(found)} samples, {counts[0]} problem{'s' * (counts[0] != 1)}, {counts[1]} to think about")
    if write_classes:
        pixels = sum(item.counts for item in found if item.counts is not None)
        shares = [f"{name}  # {pixels[i] / pixels.sum():.2%} of the pixels" for i, name in enumerate(spec.classes)]
        lines = [line for error in errors for line in getattr(error, "lines", ())] or shares
        if lines:
            write_text(file, "\n".join([HEAD, *lines, ""]))
        print(f"{file} is {'written; give the classes their names' if lines else 'not written: there are no classes'}")
    sys.exit(2 if problems else 1 if doubts else 0)


def way_on(path: Path) -> str:
    """Return which command imports the files in the folder `path`, if they are what a labelling program writes."""
    layout, reason = recognise(Source(path))
    if not layout:
        return ""
    command = import_command(path).strip("`")
    return f"this looks like {layout.NAME}: {reason}; a folder that a training takes is made by\n  {command}"


def read_all(spec: DatasetSpec, dataset: str) -> list[Found]:
    """Read every sample of every split, on all processors."""

    def read(item: tuple[str, tuple]) -> Found:
        split, sample = item
        try:
            image, mask = spec.read(sample)
            headers = [header(file) for file in sample if isinstance(file, Path)] or [("RGB", 1)]
        except UserError as error:
            return Found(split, sample[0], problem=error)
        digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        modes, turns = zip(*headers, strict=True)
        turned = turns[0] in (2, 3, 4) and turns[1:] == (1,)
        counts = None if sample[-1] is None else np.bincount(mask.ravel(), minlength=256)
        return Found(split, sample[0], None, counts, digest, modes[0], turned)

    items = [(split, sample) for split, samples in spec.splits.items() for sample in samples]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        samples = pool.map(read, items)
        return list(tqdm(samples, f"reading {dataset}", len(items), unit="image", disable=None, leave=False))


def doubts_of(found: list[Found], spec: DatasetSpec) -> dict[str, list[str]]:
    """Return sentences on what a training would take, but should perhaps not get, by kind."""
    groups, places, modes = defaultdict(list), defaultdict(list), defaultdict(list)
    present = {split: np.zeros(256, dtype=np.int64) for split in spec.splits}
    if spec.warnings:
        groups["files that are perhaps not read as you mean them"] = list(spec.warnings)
    for item in found:
        if item.problem:
            continue
        name = f"{item.split} {item.name}"
        places[item.digest].append(item)
        modes[item.mode].append(name)
        if item.counts is None:
            continue
        present[item.split] += item.counts
        if item.turned:
            groups["images that EXIF turns, and their masks not"].append(name)
        if spec.classes and not item.counts[:VOID].any():
            groups["masks of nothing but void"].append(name)
        elif spec.classes[:1] == ("background",) and not item.counts[1:VOID].any():
            groups["masks of nothing but background"].append(name)
    for mode in sorted(modes.keys() - {"RGB", "L"}):
        kind = "images that are neither plain RGB nor grey, and what they are taken for"
        taken = MODES.get(mode) or f"Pillow's mode {mode}, converted to RGB"
        groups[kind].append(f"{taken}: {len(modes[mode])}, such as {modes[mode][0]}")
    for same in places.values():
        if len(same) > 1:
            kind = "images in two splits" if len({item.split for item in same}) > 1 else "images that come twice"
            groups[kind].append(" = ".join(f"{item.split} {item.name}" for item in same))
    for split, counts in present.items():
        if not counts.any():  # no masks, or none that could be read
            continue
        for name, count in zip(spec.classes, counts[: len(spec.classes)], strict=True):
            if not count:
                groups["classes that a split lacks"].append(f"{split} has no pixel of {name}")
        if split != "train" and len(spec.splits[split]) < FEW:
            sentence = f"{split} has {len(spec.splits[split])}; a score on fewer than {FEW} images says little"
            groups["splits of few images"].append(sentence)
    return dict(groups)


def class_table(found: list[Found], spec: DatasetSpec) -> str:
    """Return, for each class, its share of the pixels and the number of images that have it, by split."""
    names = [*spec.classes, "void"]
    width = max(map(len, names))
    rows = [" " * width, *(f"{name:<{width}}" for name in names)]
    for split in spec.splits:
        counts = [item.counts for item in found if item.split == split and item.counts is not None]
        counts = np.reshape(counts, (-1, 256))[:, [*range(len(spec.classes)), VOID]]
        shares = counts.sum(0) / max(counts.sum(), 1)
        cells = [f"{share:>10.2%}{images:>10}" for share, images in zip(shares, (counts > 0).sum(0), strict=True)]
        rows = [row + cell for row, cell in zip(rows, [f"{split:>20}", *cells], strict=True)]
    return "\n".join(["share of the pixels, and images with the class:", *rows])


if __name__ == "__main__":
    cli(main)
