"""Your own images: a folder with images/, masks/ and, if you like, lists of the splits and names of the classes.

    photos/
        images/     a.jpg, trip/b.PNG, ...   any depth, any common kind of image
        masks/      a.png, trip/b.png, ...   one for each image, of the same size and name but for the suffix
        classes.txt                          optional: one class a line
        train.txt, val.txt, test.txt         optional: one image a line, by its name without suffix, trip/b

A line of classes.txt is a name, `name red green blue` or `name #rrggbb`. The lines stand for the values 0, 1, 2, ... of
the masks, or for their colours. A line `ignore 255`, or with a colour, names pixels that are neither trained on nor
scored; where there is none, that is 255.

Without classes.txt every value that occurs in the masks is a class, in order, and so is every colour if they are RGB,
black as the background. 255 is a class beside grey levels such as 0 and 128, but ignored beside numbers such as 0, 1.
Masks of 0 and 255 alone tell background from foreground, with and without classes.txt.

A list that is missing is drawn, by a hash of each name, so that an image stays where it is when others are added:
15 % of the images to validate on, 15 % as test. With two lists, val.txt or test.txt is the test, and what to validate
on is drawn from the rest. If there is a train.txt, images that no list names are left out.
"""

import hashlib
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.datasets.mask_classes import interpret, read_classes, scan
from common.datasets.reading import find_files, name_below, noted, read_pair, read_text
from common.datasets.segmentation_set import VOID, Coding, Source
from common.errors import UserError, more

SHARE = 0.15  # of the images to validate on, and of those to test on


def folder(path: Path, cache_dir: Path, progress: bool = True, problems: list[UserError] | None = None) -> Source:
    """Return the set in the folder `path`, as described above.

    The masks are looked through at the first call, and what is found is kept in `cache_dir`.

    Args:
        problems: where to add what is wrong, instead of raising it, as long as there is something to go on with. The
            set is then what is left, for check.py to read: what reading refuses is not among the problems. It has no
            classes, and all pixels are void, if the masks do not tell them.

    Raises:
        UserError: a folder or a counterpart that is missing, two files of one name, a list or classes.txt that cannot
            be understood, masks that do not fit it.
    """
    images, masks = _find(path / "images", problems), _find(path / "masks", problems)
    splits, notes = _splits(path, images, problems)
    names = [name for split in splits.values() for name in split]
    alone_too = not any((path / f"{s}.txt").is_file() for s in splits)
    _check_pairs(path, names, images, masks, alone_too, problems)
    listed, strict = None, problems is None
    with noted(problems):
        listed = read_classes(path / "classes.txt")
    found = scan([(name, masks[name]) for name in names if name in masks], cache_dir, progress, None if strict else [])
    anything = dict.fromkeys([*range(256), *found["grey"]], VOID), dict.fromkeys(found["color"], VOID)
    classes, palette, coding, said = (), (), Coding(*anything), []
    with noted(problems):
        classes, palette, coding, said = interpret(found, listed, path, strict)
    samples = {  # with `coding`: it is part of the cache
        split: [(name, images[name], masks[name], coding) for name in names if name in masks]
        for split, names in splits.items()
    }
    return Source(classes, palette, samples, _read, coding, (*notes, *said))


def _read(sample: tuple[str, Path, Path, Coding]) -> tuple[Image.Image, np.ndarray]:
    _, image_path, mask_path, coding = sample
    return read_pair(image_path, mask_path, coding)


def _refuse(broken: list, sentence: Callable[[Any, str], str], problems: list[UserError] | None) -> None:
    """Raise UserError with the sentence about the first of `broken`, and how many more; or add one about each."""
    if broken and problems is None:
        raise UserError(sentence(broken[0], more(broken)))
    for one in broken:
        problems.append(UserError(sentence(one, "")))


def _find(folder: Path, problems: list[UserError] | None) -> dict[str, Path]:
    """Return the images in `folder` by their names: the path below it, without suffix."""
    if not folder.is_dir():
        there = ", ".join(sorted(p.name for p in folder.parent.iterdir() if p.is_dir())) or "no folder"
        raise UserError(f"{folder} is missing; your own data needs the folders images and masks (there: {there})")
    found = {}
    for file in find_files(folder)[0]:
        name = name_below(folder, file)
        with noted(problems):
            if name.encode(errors="ignore").decode() != name:  # it has surrogates, for bytes that are no UTF-8
                raise UserError(f"{str(file)!a} has a name that is not in UTF-8; rename it")
            if name in found:
                raise UserError(f"{found[name]} and {file} have the same name but for the suffix; rename or remove one")
            found[name] = file
    if not found:
        raise UserError(f"{folder} holds no image")
    return found


def _check_pairs(path: Path, names: list, images: dict, masks: dict, alone_too: bool, problems: list | None) -> None:
    """Refuse those of `names`, which have images, that have no mask and, if `alone_too`, masks without image."""

    def lacks(file: Path, others: str, what: str, expected: Path) -> str:
        return f"{file}{others} has no {what}; expected {expected}, or another suffix"

    without = [name for name in names if name not in masks]
    _refuse(without, lambda n, others: lacks(images[n], others, "mask", path / f"masks/{n}.png"), problems)
    alone = [name for name in masks if alone_too and name not in images]
    _refuse(alone, lambda n, others: lacks(masks[n], others, "image", path / f"images/{n}.jpg"), problems)


def _splits(
    path: Path, images: dict[str, Path], problems: list[UserError] | None
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the names in each split, and what to say about it."""
    lists = {s: path / f"{s}.txt" for s in ("train", "val", "test") if (path / f"{s}.txt").is_file()}
    splits = {split: _read_list(file, images, problems) for split, file in lists.items()}
    owner = {}
    for split, names in splits.items():
        for name in names:
            with noted(problems):
                if name in owner:
                    raise UserError(
                        f"{lists[owner[name]]} and {lists[split]} both name {name}; an image is in one split"
                    )
                owner[name] = split
        splits[split] = [name for name in names if owner[name] == split]
    pool = splits.get("train") or [name for name in images if name not in owner]
    notes = []
    if "train" in splits and len(owner) < len(images):
        notes.append(f"{len(images) - len(owner)} images are in none of the lists and left out")
    if "val" in splits and "test" in splits:
        if not pool:
            raise UserError(f"{path}: val.txt and test.txt name every image; leave some to train on")
        return {"train": pool, "val": splits["val"], "test": splits["test"]}, notes
    if "val" in splits or "test" in splits:
        (test,) = (split for split in splits if split != "train")
        val, train = _draw(pool, 2, path)
        notes.append(f"{test}.txt is the test; to validate on, {len(val)} other images are drawn by their names")
        return {"train": train, "val": val, "test": splits[test]}, notes
    test, val, train = _draw(pool, 3, path)
    if "train" in splits:
        notes.append("train.txt is the only list; what to validate and to test on is drawn from it by the names")
    else:
        notes.append("split by the images' names, as no list says how")
    return {"train": train, "val": val, "test": test}, notes


def _read_list(file: Path, images: dict[str, Path], problems: list[UserError] | None) -> list[str]:
    """Return the images that a list names, each once; their suffixes may be there."""
    lines = []
    with noted(problems):
        lines = [line for line in read_text(file).splitlines() if line.strip()]
        if not lines:
            raise UserError(f"{file} is empty; it should name one image a line (without the file, a split is drawn)")
    names = [unicodedata.normalize("NFC", line.strip().replace("\\", "/")) for line in lines]
    names = [name if name in images else (Path(name).parent / Path(name).stem).as_posix() for name in names]
    unknown = [name for name in names if name not in images]
    _refuse(
        unknown,
        lambda name, others: (
            f"{file} names {name!r:.80}{others}, not in {file.parent / 'images'}; "
            "a line is an image's path below that folder, without suffix"
        ),
        problems,
    )
    return list(dict.fromkeys(name for name in names if name in images))


def _draw(names: list[str], parts: int, path: Path) -> list[list[str]]:
    """Divide `names` into `parts`, none empty: SHARE of them in each but the last, which has the rest."""
    if len(names) < parts:
        raise UserError(f"{path} has {len(names)} images to draw a split from, and needs {parts} at least")
    place = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in names}
    order, cuts = sorted(names, key=place.__getitem__), [0]
    for part in range(1, parts):
        end = sum(place[name] < part * SHARE for name in names)
        cuts.append(min(max(end, cuts[-1] + 1), len(names) - parts + part))
    return [sorted(order[a:b]) for a, b in zip(cuts, [*cuts[1:], None], strict=True)]
