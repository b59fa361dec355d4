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
from pathlib import Path

import numpy as np
from PIL import Image

from common.datasets.mask_classes import interpret, read_classes, scan
from common.datasets.reading import check_size, find_files, name_below, read_image, read_mask
from common.datasets.segmentation_set import Coding, Source
from common.errors import UserError, more

SHARE = 0.15  # of the images to validate on, and of those to test on


def folder(path: Path, cache_dir: Path, progress: bool = True) -> Source:
    """Return the set in the folder `path`, as described above.

    The masks are looked through at the first call, and what is found is kept in `cache_dir`.

    Raises:
        UserError: a folder or a counterpart that is missing, two files of one name, a list or classes.txt that cannot
            be understood, masks that do not fit it.
    """
    images, masks = _find(path / "images"), _find(path / "masks")
    splits, notes = _splits(path, images)
    names = [name for split in splits.values() for name in split]
    _check_pairs(path, names, images, masks, alone_too=not any((path / f"{s}.txt").is_file() for s in splits))
    listed = read_classes(path / "classes.txt")
    found = scan([(name, masks[name]) for name in names], cache_dir, progress)
    classes, palette, coding, more = interpret(found, listed, path)
    samples = {
        split: [(name, images[name], masks[name], coding) for name in names]  # with `coding`: it is part of the cache
        for split, names in splits.items()
    }
    return Source(classes, palette, samples, _read, coding, (*notes, *more))


def _read(sample: tuple[str, Path, Path, Coding]) -> tuple[Image.Image, np.ndarray]:
    _, image_path, mask_path, coding = sample
    image, mask = read_image(image_path), read_mask(mask_path, coding)
    check_size(image, mask, image_path, mask_path)
    return image, mask


def _find(folder: Path) -> dict[str, Path]:
    """Return the images in `folder` by their names: the path below it, without suffix."""
    if not folder.is_dir():
        there = ", ".join(sorted(p.name for p in folder.parent.iterdir() if p.is_dir())) or "no folder"
        raise UserError(f"{folder} is missing; your own data needs the folders images and masks (there: {there})")
    found = {}
    for file in find_files(folder)[0]:
        name = name_below(folder, file)
        if name in found:
            raise UserError(f"{found[name]} and {file} have the same name but for the suffix; rename or remove one")
        found[name] = file
    if not found:
        raise UserError(f"{folder} holds no image")
    return found


def _check_pairs(path: Path, names: list[str], images: dict, masks: dict, alone_too: bool) -> None:
    """Raise UserError unless each of `names`, which have images, has a mask; if `alone_too`, each mask an image."""
    if without := [name for name in names if name not in masks]:
        raise UserError(
            f"{images[without[0]]}{more(without)} has no mask; expected "
            f"{path / 'masks' / without[0]}.png, or another suffix"
        )
    if alone_too and (alone := [name for name in masks if name not in images]):
        raise UserError(
            f"{masks[alone[0]]}{more(alone)} has no image; expected {path / 'images' / alone[0]}.jpg, or another suffix"
        )


def _splits(path: Path, images: dict[str, Path]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the names in each split, and what to say about it."""
    lists = {s: path / f"{s}.txt" for s in ("train", "val", "test") if (path / f"{s}.txt").is_file()}
    splits = {split: _read_list(file, images) for split, file in lists.items()}
    owner = {}
    for split, names in splits.items():
        for name in names:
            if name in owner:
                raise UserError(f"{lists[owner[name]]} and {lists[split]} both name {name}; an image is in one split")
            owner[name] = split
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
    return {"train": train, "val": val, "test": test}, [*notes, "split by the images' names, as no list says how"]


def _read_list(file: Path, images: dict[str, Path]) -> list[str]:
    """Return the images that a list names, each once; their suffixes may be there."""
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    names = [unicodedata.normalize("NFC", line.strip().replace("\\", "/")) for line in lines if line.strip()]
    names = [name if name in images else str(Path(name).with_suffix("").as_posix()) for name in names]
    if unknown := [name for name in names if name not in images]:
        raise UserError(
            f"{file} names {unknown[0]!r:.80}{more(unknown)}, not in {file.parent / 'images'}; "
            "a line is an image's path below that folder, without suffix"
        )
    if not names:
        raise UserError(f"{file} is empty; it should name one image a line (without the file, a split is drawn)")
    return list(dict.fromkeys(names))


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
