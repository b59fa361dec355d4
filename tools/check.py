"""Check a data set: read every image and mask, and list all faults.

    python -m tools.check voc2012                       # a data set from download.py
    python -m tools.check path/to/folder                # your own images and masks
    python -m tools.check path/to/folder --write-classes

The exit status is 0 if all is well, and 2 if a training would refuse the data. It is 1 if you should look at something,
such as an image in two splits, a class that a split lacks, or a mask with only background.
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

HEAD = "# One class a line. The name `ignore` marks void pixels: they are neither trained on nor scored."
MODES = {  # Pillow's modes in words
    "1": "black and white",
    "CMYK": "CMYK, the four inks of print, converted to RGB",
    "I;16": "16-bit grey, reduced to 8 bits",
    "LA": "grey with transparency; the transparency is dropped",
    "P": "a palette of colours, converted to RGB",
    "RGB of 4 channels": "RGB with a fourth channel; the fourth is dropped",
    "RGBA": "RGB with transparency; the transparency is dropped",
}
LEAST = 5  # images of a split; on fewer, a score depends too much on each image


@dataclass
class Found:
    """The result of reading one sample."""

    split: str
    name: str
    problem: UserError | None = None  # the reason if the sample cannot be used
    counts: np.ndarray | None = None  # pixels (256,) of each mask value; None without a mask
    digest: str = ""  # hash of the decoded image
    mode: str = "RGB"  # Pillow's mode of the image file
    turned: bool = False  # whether EXIF turns the image but not the mask


def main(
    dataset: str,  # name of a data set, or a folder with images/ and masks/
    data_root: Path = Path("data"),  # folder that download.py filled
    cache_dir: Path = Path(".cache"),  # folder for summaries of your masks
    show: int = 5,  # number of sentences to print for each kind of problem
    write_classes: bool = False,  # write a first classes.txt for your folder; then edit it
):
    """Read everything, print the result, exit with one of the statuses above."""
    path = Path(dataset).expanduser()
    own, file = dataset not in DATASETS and path.is_dir(), path / "classes.txt"
    if write_classes and not own:
        raise UserError("--write-classes needs a folder with images/ and masks/")
    if write_classes and file.exists():
        raise UserError(f"--write-classes: {file} exists; move it away")
    spec, errors, found, warnings = None, [], [], {}
    try:
        spec = inspect(path, cache_dir, errors) if own else spec_of(dataset, Run(data_root=data_root))
    except UserError as error:
        print("nothing could be read:")
        errors.append(error)
    if spec:
        print("".join(f"note: {note}\n" for note in spec.notes), end="")
        found = read_all(spec, dataset)
        warnings = warnings_of(found, spec)
        if spec.classes:
            print(class_table(found, spec))
    problems = problems_of(errors, found)
    print_groups("problems", problems, show)
    print_groups("please look at", warnings, show)
    if own and problems and (hint := import_advice(path)):
        print(f"\n{hint}")
    counts = [sum(map(len, groups.values())) for groups in (problems, warnings)]
    print(f"\n{dataset}: {len(found)} samples, {counts[0]} problem{'s' * (counts[0] != 1)}, {counts[1]} to look at")
    if write_classes:
        lines = [line for error in errors for line in getattr(error, "lines", ())] or class_lines(found, spec)
        if lines:
            write_text(file, "\n".join([HEAD, *lines, ""]))
        print(f"{file} is {'written; edit the names of the classes' if lines else 'not written: there are no classes'}")
    sys.exit(2 if problems else 1 if warnings else 0)


def problems_of(errors: list[UserError], found: list[Found]) -> dict[str, list[str]]:
    """Return the problems of the data set and of its samples by kind, each with its lines for classes.txt."""
    groups, told = defaultdict(list), [*errors, *(item.problem for item in found if item.problem)]
    for problem in {str(problem): problem for problem in told}.values():  # damaged masks were read twice
        kind, lines = (problem.kind, problem.lines) if isinstance(problem, Problem) else ("other problems", [])
        groups[kind].append("\n      ".join([str(problem), *lines]))
    return groups


def print_groups(title: str, groups: dict[str, list[str]], show: int) -> None:
    """Print the first `show` sentences of each kind."""
    for kind, sentences in groups.items():
        print(f"\n{title} ({len(sentences)}): {kind}")
        print("\n".join(f"  {sentence}" for sentence in sentences[:show]))
        if len(sentences) > show:
            print(f"  and {len(sentences) - show} more (--show {len(sentences)} prints all)")


def class_lines(found: list[Found], spec: DatasetSpec | None) -> list[str]:
    """Return the lines of classes.txt for the classes of `spec`, each with its share of the pixels."""
    pixels = sum(item.counts for item in found if item.counts is not None)
    names = spec.classes if spec else ()
    return [f"{name}  # {pixels[i] / pixels.sum():.2%} of the pixels" for i, name in enumerate(names)]


def import_advice(path: Path) -> str:
    """Return advice with the import command if a labelling program wrote the folder `path`, else ""."""
    layout, reason = recognise(source := Source(path))
    if not layout:
        return next((f"a file of labels is damaged: {problem}" for problem in source.damaged()), "")
    command = import_command(path).strip("`")
    return f"this looks like {layout.NAME}: {reason}; convert it to a folder for training with\n  {command}"


def read_all(spec: DatasetSpec, dataset: str) -> list[Found]:
    """Read every sample of every split, on all CPU cores."""

    def read(item: tuple[str, tuple]) -> Found:
        split, sample = item
        try:
            image, mask = spec.read(sample)
            # A sample of shapes.py holds no image: its file is the script.
            files = [file for file in sample if isinstance(file, Path) and file.suffix != ".py"]
            headers = [header(file) for file in files] or [("RGB", 1)]
        except UserError as error:
            return Found(split, sample[0], problem=error)
        digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        modes, turns = zip(*headers, strict=True)
        # Orientations 2, 3 and 4 keep width and height, so no error shows that only the image turns.
        turned = turns[0] in (2, 3, 4) and turns[1:] == (1,)
        counts = None if sample[-1] is None else np.bincount(mask.ravel(), minlength=256)
        return Found(split, sample[0], None, counts, digest, modes[0], turned)

    items = [(split, sample) for split, samples in spec.splits.items() for sample in samples]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        samples = pool.map(read, items)
        return list(tqdm(samples, f"reading {dataset}", len(items), unit="image", disable=None, leave=False))


def warnings_of(found: list[Found], spec: DatasetSpec) -> dict[str, list[str]]:
    """Return warnings by kind: data that a training would accept but that may be wrong."""
    groups, places, modes = defaultdict(list), defaultdict(list), defaultdict(list)
    present = {split: np.zeros(256, dtype=np.int64) for split in spec.splits}
    if spec.warnings:
        groups["files that may be read differently than you expect"] = list(spec.warnings)
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
            groups["images that EXIF turns without their masks"].append(name)
        if spec.classes and not item.counts[:VOID].any():
            groups["masks with only void pixels"].append(name)
        elif spec.classes[:1] == ("background",) and not item.counts[1:VOID].any():
            groups["masks with only background"].append(name)
    for mode in sorted(modes.keys() - {"RGB", "L"}):
        kind = "images that are neither RGB nor grey, and how they are read"
        taken = MODES.get(mode) or f"Pillow's mode {mode}, converted to RGB"
        groups[kind].append(f"{taken}: {len(modes[mode])}, such as {modes[mode][0]}")
    for same in places.values():
        if len(same) > 1:
            kind = "images in two splits" if len({item.split for item in same}) > 1 else "images that exist twice"
            groups[kind].append(" = ".join(f"{item.split} {item.name}" for item in same))
    for split, counts in present.items():
        if not counts.any():  # no readable mask
            continue
        for name, count in zip(spec.classes, counts[: len(spec.classes)], strict=True):
            if not count:
                groups["classes that a split lacks"].append(f"{split} has no pixel of {name}")
        if split != "train" and len(spec.splits[split]) < LEAST:
            sentence = f"{split} has {len(spec.splits[split])}; a score on fewer than {LEAST} images is unreliable"
            groups["splits with few images"].append(sentence)
    return dict(groups)


def class_table(found: list[Found], spec: DatasetSpec) -> str:
    """Return a table of each class's share of the pixels and its number of images, by split."""
    names = [*spec.classes, "void"]
    width = max(map(len, names))
    rows = [" " * width, *(f"{name:<{width}}" for name in names)]
    for split in spec.splits:
        counts = [item.counts for item in found if item.split == split and item.counts is not None]
        counts = np.reshape(counts, (-1, 256))[:, [*range(len(spec.classes)), VOID]]
        shares = counts.sum(0) / max(counts.sum(), 1)
        cells = [f"{share:>10.2%}{images:>10}" for share, images in zip(shares, (counts > 0).sum(0), strict=True)]
        rows = [row + cell for row, cell in zip(rows, [f"{split:>20}", *cells], strict=True)]
    return "\n".join(["each class's share of the pixels and number of images, by split:", *rows])


if __name__ == "__main__":
    cli(main)
