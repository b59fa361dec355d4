"""Is this data as it should be? Every image and mask is read, and all that is wrong is told at once.

    python check.py voc2012                       # a set that download.py has fetched
    python check.py path/to/folder                # your own images and masks
    python check.py drinks --data-root ../data

Ends with status 0 if all is well, 1 if there is something to think about (an image in two splits, a class that a split
lacks, a mask of nothing but background), and 2 if a training would refuse the data.
"""

import hashlib
import os
import re
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.cli import cli
from common.datasets import source_of
from common.datasets.segmentation_set import VOID, Source
from common.errors import UserError
from common.run import Run

# What a reader's sentence is about, by words in it.
KINDS = {
    "files that are missing": r" is missing",
    "files that cannot be read": r" cannot be read",
    "values or colours that are no class": r"holds the value|has the colour|is a mask in",
    "masks of another size than their image": r"the size of its image",
}


@dataclass
class Found:
    """What reading a sample has shown."""

    split: str
    name: str
    problem: str = ""  # why it cannot be used
    counts: np.ndarray | None = None  # pixels (256,) of each mask value
    digest: str = ""  # of the decoded image


def main(
    dataset: str,  # name of a set, or a folder with images/ and masks/
    data_root: Path = Path("data"),  # folder that download.py filled
    cache_dir: Path = Path(".cache"),  # folder for what was found out about masks of your own
    show: int = 5,  # sentences of each kind that are printed
):
    """Read everything, print what was found, exit with the status that the docstring tells."""
    try:
        source = source_of(dataset, Run(data_root=data_root, cache_dir=cache_dir))
    except UserError as error:
        print(f"the files cannot even be listed: {error}")
        sys.exit(2)
    found = read_all(source, dataset)
    problems, doubts = problems_of(found), doubts_of(found, source)
    print(table(found, source))
    for title, groups in (("problems", problems), ("to think about", doubts)):
        for kind, sentences in groups.items():
            print(f"\n{title} ({len(sentences)}): {kind}")
            print("\n".join(f"  {sentence}" for sentence in sentences[:show]))
            if len(sentences) > show:
                print(f"  and {len(sentences) - show} more (--show {len(sentences)} prints all)")
    counts = [sum(map(len, groups.values())) for groups in (problems, doubts)]
    print(f"\n{dataset}: {len(found)} samples, {counts[0]} problems, {counts[1]} to think about")
    sys.exit(2 if problems else 1 if doubts else 0)


def read_all(source: Source, dataset: str) -> list[Found]:
    """Read every sample of every split, on all processors."""

    def read(item: tuple[str, tuple]) -> Found:
        split, sample = item
        try:
            image, mask = source.read(sample)
        except UserError as error:
            return Found(split, sample[0], problem=str(error))
        digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        return Found(split, sample[0], counts=np.bincount(mask.ravel(), minlength=256), digest=digest)

    items = [(split, sample) for split, samples in source.splits.items() for sample in samples]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(
            tqdm(pool.map(read, items), f"reading {dataset}", len(items), unit="image", disable=None, leave=False)
        )


def problems_of(found: list[Found]) -> dict[str, list[str]]:
    """Return the sentences of samples that cannot be used, by kind; those of values with their frequency first."""
    groups, wrong = defaultdict(list), Counter()
    for item in found:
        if item.problem:
            kind = next((kind for kind, words in KINDS.items() if re.search(words, item.problem)), "other problems")
            groups[kind].append(item.problem)
            wrong.update(re.findall(r"the (?:value|colour) (\d+|\(.*?\))", item.problem)[:1])
    values = "values or colours that are no class"
    if wrong:
        often = ", ".join(f"{value} (x{count})" for value, count in wrong.most_common())
        groups[f"{values}: {often}"] = groups.pop(values)
    return dict(groups)


def doubts_of(found: list[Found], source: Source) -> dict[str, list[str]]:
    """Return sentences on what a training would take, but should perhaps not get, by kind."""
    groups, places = defaultdict(list), defaultdict(list)
    present = {split: np.zeros(256, dtype=np.int64) for split in source.splits}
    for item in found:
        if item.counts is None:
            continue
        places[item.digest].append(item)
        present[item.split] += item.counts
        if not item.counts[:VOID].any():
            groups["masks of nothing but void"].append(f"{item.split} {item.name}")
        elif source.classes[0] == "background" and not item.counts[1:VOID].any():
            groups["masks of nothing but background"].append(f"{item.split} {item.name}")
    for same in places.values():
        if len(same) > 1:
            kind = "images in two splits" if len({item.split for item in same}) > 1 else "images that come twice"
            groups[kind].append(" = ".join(f"{item.split} {item.name}" for item in same))
    for split, counts in present.items():
        for name, count in zip(source.classes, counts[: len(source.classes)], strict=True):
            if not count:
                groups["classes that a split lacks"].append(f"{split} has no pixel of {name}")
    return dict(groups)


def table(found: list[Found], source: Source) -> str:
    """Return, for each class, its share of the pixels and the number of images that have it, by split."""
    names = [*source.classes, "void"]
    width = max(map(len, names))
    lines = [" " * width + "".join(f"{split:>20}" for split in source.splits)]
    rows = dict.fromkeys(names, "")
    for split in source.splits:
        counts = [item.counts for item in found if item.split == split and item.counts is not None]
        counts = np.stack(counts)[:, [*range(len(source.classes)), VOID]] if counts else np.zeros((0, len(names)))
        total = counts.sum()
        for name, pixels, images in zip(names, counts.sum(0), (counts > 0).sum(0), strict=True):
            rows[name] += f"{pixels / total if total else 0:>10.2%}{images:>10}"
    lines += [f"{name:<{width}}{row}" for name, row in rows.items()]
    return "\n".join(["share of the pixels, and images with the class:", *lines])


if __name__ == "__main__":
    cli(main)
