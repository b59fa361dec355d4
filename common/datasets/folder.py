"""Your own images: a folder with images/, masks/ and, if you like, lists of the splits and names of the classes.

    photos/
        images/     a.jpg, trip/b.PNG, ...   any depth, any common kind of image
        masks/      a.png, trip/b.png, ...   one for each image, of the same size and name but for the suffix
        classes.txt                          optional: one class a line
        train.txt, val.txt, test.txt         optional: one image a line, by its name without suffix, trip/b

A line of classes.txt is a name, `name red green blue` or `name #rrggbb`. The lines stand for the values 0, 1, 2, ... of
the masks, or for their colours. A line `ignore 255`, or with a colour, names pixels that are neither trained on nor
scored; where there is none, that is 255. A line that begins with `#` is a comment, and so is what follows ` # `.

Palette masks are read by their colours if classes.txt lists them all, and else by their values.

Without classes.txt the masks hold the values 0, 1, 2, ... and perhaps 255, which is ignored. Anything else, such as RGB
masks or the grey levels 0, 128 and 255, must be listed, each with its colour: `python check.py folder` proposes lines,
and writes them with --write-classes. Masks of 0 and 255 alone tell background from foreground, listed or not.

A list that is missing is drawn, in the order of a hash of the names, so that few images move when others are added:
15 % of the images to validate on, 15 % as test. With two lists, val.txt or test.txt is the test, and what to validate
on is drawn from the rest. If there is a train.txt, images that no list names are left out.

Where no image of test.txt has a mask, as in a course that keeps the answers back, these are predicted, not scored.
"""

import hashlib
import itertools
import re
import unicodedata
from pathlib import Path

from common.datasets.mask_classes import interpret, read_classes
from common.datasets.mask_contents import scan
from common.datasets.reading import Problem, files_by_name, read_text
from common.datasets.segmentation_set import DatasetSpec
from common.system.errors import UserError

SHARE = 0.15  # of the images to validate on, and of those to test on


def folder(path: Path, cache_dir: Path, progress: bool = True, fold: str = "") -> DatasetSpec:
    """Return the set in the folder `path`, as described above.

    The masks are looked through at the first call, and what is found is kept in `cache_dir`.

    Args:
        fold: what `drawn_fold` takes, where there are no lists.

    Raises:
        UserError: a folder or a counterpart that is missing, two files of one name, a list or classes.txt that cannot
            be understood, masks that do not fit it.
    """
    problems = []
    spec = inspect(path, cache_dir, problems, progress, fold)
    if problems:
        more = f" (and {len(problems) - 1} more problems; `python check.py {path}` tells all)"
        raise UserError(f"{problems[0]}{more * (len(problems) > 1)}")
    return spec


def inspect(
    path: Path, cache_dir: Path, problems: list[UserError], progress: bool = True, fold: str = ""
) -> DatasetSpec:
    """Return what is sound in the folder `path`, as `folder` does, and add what is wrong to `problems`.

    What reading the files would refuse is not among them. If the masks do not tell classes, all their pixels are void.

    Raises:
        UserError: there is nothing to go on with.
    """
    images, masks = _find(path / "images", problems), _find(path / "masks", problems)
    splits, notes = _splits(path, images, problems, fold)
    if splits["test"] and (path / "test.txt").is_file() and masks.keys().isdisjoint(splits["test"]):
        notes.append(f"the {len(splits['test'])} images of test.txt have no masks: they can be predicted, not scored")
        masks |= dict.fromkeys(splits["test"])
    names = [name for split in splits.values() for name in split]
    for name in names:
        if name not in masks:
            sentence = f"{images[name]} has no mask; expected {path}/masks/{name}.png, or another suffix"
            problems.append(Problem("images without a mask", sentence))
    if not any((path / f"{split}.txt").is_file() for split in splits):
        for name in masks.keys() - images.keys():
            sentence = f"{masks[name]} has no image; expected {path}/images/{name}.jpg, or another suffix"
            problems.append(Problem("masks without an image", sentence))
    found = scan([(name, masks[name]) for name in names if masks.get(name)], cache_dir, progress)
    problems += found.unread
    classes, palette, label_map, said = interpret(found.held, read_classes(path / "classes.txt"), path, problems)
    samples = {
        split: [(name, images[name], masks[name]) for name in names if name in masks] for split, names in splits.items()
    }
    return DatasetSpec(classes, palette, samples, label_map, (*notes, *said))


def drawn_fold(names: list[str], fold: str, where: str) -> dict[str, list[str]]:
    """Return the splits of a cross-validation: of "2/5" every fifth image, from the second, is the test.

    Of "kitchen" the images in the folder of that name are: those of a place, a patient or a film that is new.

    Raises:
        UserError: a fold that is none, or that `where` has too few images for.
    """
    number, count = (int(n) for n in fold.split("/")) if re.fullmatch(r"\d+/\d+", fold) else (0, 0)
    test = [name for name in names if name.startswith(f"{fold}/")]
    if 1 <= number <= count <= len(names):
        test = _shuffled(names)[number - 1 :: count]
    if not 0 < len(test) < len(names):
        folders = ", ".join(sorted({name.partition("/")[0] for name in names if "/" in name}))
        raise UserError(
            f"--fold {fold} is not possible with the {len(names)} images of {where}; 2/5 is the second fifth"
            + f", and a folder's name what is in it (there: {folders})" * bool(folders)
        )
    val, train = _draw(sorted({*names} - {*test}), 2, where)
    return {"train": train, "val": val, "test": sorted(test)}


def _find(folder: Path, problems: list[UserError]) -> dict[str, Path]:
    """Return the images in `folder` by their names: the path below it, without suffix."""
    if not folder.is_dir():
        there = ", ".join(sorted(p.name for p in folder.parent.iterdir() if p.is_dir())) or "no folder"
        sentence = f"{folder} is missing; your own data needs the folders images and masks (there: {there})"
        raise UserError(f"{sentence}; import_labels.py makes them of what labelling programs export")
    return files_by_name(folder, problems)


def _splits(
    path: Path, images: dict[str, Path], problems: list[UserError], fold: str
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the names in each split, and what to say about it."""
    lists = {split: path / f"{split}.txt" for split in ("train", "val", "test")}
    if fold:
        if there := [file for file in lists.values() if file.is_file()]:
            raise UserError(f"--fold {fold} draws the splits, but {there[0]} says how they are; move the lists away")
        return drawn_fold(list(images), fold, str(path)), [f"fold {fold}, drawn by the images' names"]
    splits = {split: _read_list(file, images, problems) for split, file in lists.items() if file.is_file()}
    for a, b in itertools.combinations(splits, 2):
        for name in sorted({*splits[a]} & {*splits[b]}):
            sentence = f"{lists[a]} and {lists[b]} both name {name}; an image is in one split"
            problems.append(Problem("images in two lists", sentence))
    listed = {name for names in splits.values() for name in names}
    pool = splits.get("train") or [name for name in images if name not in listed]
    notes = []
    if "train" in splits and len(listed) < len(images):
        notes.append(f"{len(images) - len(listed)} images are in none of the lists and left out")
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
    only = "train.txt is the only list; what to validate and to test on is drawn from it by the names"
    notes.append(only if "train" in splits else "split by the images' names, as no list says how")
    return {"train": train, "val": val, "test": test}, notes


def _read_list(file: Path, images: dict[str, Path], problems: list[UserError]) -> list[str]:
    """Return the images that a list names, each once; their suffixes may be there."""
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    if not lines:
        problems.append(UserError(f"{file} is empty; it should name one image a line, or not be there"))
    names = [unicodedata.normalize("NFC", line.replace("\\", "/")) for line in lines]
    names = [name if name in images else (Path(name).parent / Path(name).stem).as_posix() for name in names]
    for name in names:
        if name not in images:
            there = f"not in {file.parent / 'images'}; a line is an image's path below that folder, without suffix"
            problems.append(Problem("lines of lists that name no image", f"{file} names {name!r:.80}, {there}"))
    return list(dict.fromkeys(name for name in names if name in images))


def _draw(names: list[str], parts: int, where: Path | str) -> list[list[str]]:
    """Divide `names` into `parts`, none empty: SHARE of them in each but the last, which has the rest."""
    if len(names) < parts:
        raise UserError(f"{where} has {len(names)} images to draw a split from, and needs {parts} at least")
    order, count = _shuffled(names), max(1, round(SHARE * len(names)))
    cuts = [part * count for part in range(parts)]
    return [sorted(order[a:b]) for a, b in zip(cuts, [*cuts[1:], None], strict=True)]


def _shuffled(names: list[str]) -> list[str]:
    """Return `names` in the order of their hashes: another for other names, but the same on every machine."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
