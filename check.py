"""Is this data as it should be? Every image and mask is read, and the first fault of each is told, all at once.

    python check.py voc2012                       # a set that download.py has fetched
    python check.py path/to/folder                # your own images and masks
    python check.py drinks --data-root ../data

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
from common.datasets.reading import Problem, orientation
from common.datasets.segmentation_set import DatasetSpec
from common.labels import VOID
from common.run import Run
from common.system.errors import UserError


@dataclass
class Found:
    """What reading a sample has shown."""

    split: str
    name: str
    problem: UserError | None = None  # why it cannot be used
    counts: np.ndarray | None = None  # pixels (256,) of each mask value
    digest: str = ""  # of the decoded image
    turned: bool = False  # by its EXIF orientation, and its mask is not


def main(
    dataset: str,  # name of a set, or a folder with images/ and masks/
    data_root: Path = Path("data"),  # folder that download.py filled
    cache_dir: Path = Path(".cache"),  # folder for what was found out about masks of your own
    show: int = 5,  # sentences of each kind that are printed
):
    """Read everything, print what was found, exit with the status that the docstring tells."""
    errors, found, doubts, path = [], [], {}, Path(dataset).expanduser()
    try:
        if dataset in DATASETS or not path.is_dir():
            spec = spec_of(dataset, Run(data_root=data_root, cache_dir=cache_dir))
        else:
            spec = inspect(path, cache_dir, errors)
        found = read_all(spec, dataset)
        doubts = doubts_of(found, spec)
        if spec.classes:  # it is known what the masks mean
            print(class_table(found, spec))
    except UserError as error:
        print("the files cannot even be listed")
        errors.append(error)
    problems = problems_of([*errors, *(item.problem for item in found if item.problem)])
    for title, groups in (("problems", problems), ("to think about", doubts)):
        for kind, sentences in groups.items():
            print(f"\n{title} ({len(sentences)}): {kind}")
            print("\n".join(f"  {sentence}" for sentence in sentences[:show]))
            if len(sentences) > show:
                print(f"  and {len(sentences) - show} more (--show {len(sentences)} prints all)")
    counts = [sum(map(len, groups.values())) for groups in (problems, doubts)]
    print(f"\n{dataset}: {len(found)} samples, {counts[0]} problems, {counts[1]} to think about")
    sys.exit(2 if problems else 1 if doubts else 0)


def read_all(spec: DatasetSpec, dataset: str) -> list[Found]:
    """Read every sample of every split, on all processors."""

    def read(item: tuple[str, tuple]) -> Found:
        split, sample = item
        try:
            image, mask = spec.read(sample)
            turned = turned_alone(sample)
        except UserError as error:
            return Found(split, sample[0], problem=error)
        digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        return Found(split, sample[0], counts=np.bincount(mask.ravel(), minlength=256), digest=digest, turned=turned)

    items = [(split, sample) for split, samples in spec.splits.items() for sample in samples]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(
            tqdm(pool.map(read, items), f"reading {dataset}", len(items), unit="image", disable=None, leave=False)
        )


def turned_alone(sample: tuple) -> bool:
    """Return whether EXIF turns an image or mirrors it, and not its mask, so that their sizes agree all the same."""
    match sample:
        case (_, Path() as image, Path() as mask):
            return orientation(image) in (2, 3, 4) and orientation(mask) == 1
    return False


def problems_of(problems: list[UserError]) -> dict[str, list[str]]:
    """Return the sentences of `problems` by kind."""
    groups = defaultdict(list)
    for problem in problems:
        kind, lines = (problem.kind, problem.lines) if isinstance(problem, Problem) else ("other problems", [])
        groups[kind].append("\n      ".join([str(problem), *lines]))
    return dict(groups)


def doubts_of(found: list[Found], spec: DatasetSpec) -> dict[str, list[str]]:
    """Return sentences on what a training would take, but should perhaps not get, by kind."""
    groups, places = defaultdict(list), defaultdict(list)
    present = {split: np.zeros(256, dtype=np.int64) for split in spec.splits}
    for item in found:
        if item.counts is None:
            continue
        places[item.digest].append(item)
        present[item.split] += item.counts
        if item.turned:
            groups["images that EXIF turns, and their masks not"].append(f"{item.split} {item.name}")
        if not spec.classes:
            continue
        if not item.counts[:VOID].any():
            groups["masks of nothing but void"].append(f"{item.split} {item.name}")
        elif spec.classes[0] == "background" and not item.counts[1:VOID].any():
            groups["masks of nothing but background"].append(f"{item.split} {item.name}")
    for same in places.values():
        if len(same) > 1:
            kind = "images in two splits" if len({item.split for item in same}) > 1 else "images that come twice"
            groups[kind].append(" = ".join(f"{item.split} {item.name}" for item in same))
    for split, counts in present.items():
        for name, count in zip(spec.classes, counts[: len(spec.classes)], strict=True):
            if not count:
                groups["classes that a split lacks"].append(f"{split} has no pixel of {name}")
    return dict(groups)


def class_table(found: list[Found], spec: DatasetSpec) -> str:
    """Return, for each class, its share of the pixels and the number of images that have it, by split."""
    names = [*spec.classes, "void"]
    width = max(map(len, names))
    lines = [" " * width + "".join(f"{split:>20}" for split in spec.splits)]
    rows = dict.fromkeys(names, "")
    for split in spec.splits:
        counts = [item.counts for item in found if item.split == split and item.counts is not None]
        counts = np.stack(counts)[:, [*range(len(spec.classes)), VOID]] if counts else np.zeros((0, len(names)))
        total = counts.sum()
        for name, pixels, images in zip(names, counts.sum(0), (counts > 0).sum(0), strict=True):
            rows[name] += f"{pixels / total if total else 0:>10.2%}{images:>10}"
    lines += [f"{name:<{width}}{row}" for name, row in rows.items()]
    return "\n".join(["share of the pixels, and images with the class:", *lines])


if __name__ == "__main__":
    cli(main)
