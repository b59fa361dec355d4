"""Split the images of a folder into training, validation and test: by lists, by folders, or at random.

The docstring of folder.py gives the rules.
"""

import hashlib
import itertools
import re
import unicodedata
from pathlib import Path, PurePosixPath

from common.datasets.reading import Problem, read_text
from common.system.errors import UserError

SHARE = 0.15  # of all images for validation, and again for the test
FOLDERS = {  # folder names that mean a split, in upper or lower case
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

Splits = dict[str, list[str]]  # names of the images in "train", "val" and "test"


def find_splits(
    path: Path, images: dict[str, Path], problems: list[UserError], fold: str
) -> tuple[Splits, dict[str, str], list[str]]:
    """Return the splits, the list or folder that each given split comes from, and notes for the screen.

    Args:
        path: the folder of the data set.
        images: files by name; the first part of a name is a folder that may be a split.
        fold: as in `drawn_fold`, or "" for no cross-validation.
    """
    lists = {split: file for split in ("train", "val", "test") if (file := path / f"{split}.txt").is_file()}
    folders = _in_folders(images)
    if fold:
        if lists:
            there = next(iter(lists.values()))
            raise UserError(f"--fold {fold} draws the splits, but {there} defines them; move the lists away")
        if folders:
            there = f"folders of {path} define them: {', '.join(folders)}"
            raise UserError(f"--fold {fold} draws the splits, but {there}; rename them or move the images out of them")
        return drawn_fold(list(images), fold, str(path)), {}, [f"fold {fold}, drawn from a hash of the names"]
    if lists:
        where = {split: file.name for split, file in lists.items()}
        given, notes = _listed(lists, images, problems), []
    else:
        given, where, notes = _by_folders(path, folders, images)
    splits, more = _complete(path, list(images), given, where)
    return splits, where, notes + more


def _in_folders(images: dict[str, Path]) -> dict[str, list[str]]:
    """Return, for each folder whose name means a split, the names of its images."""
    found = {}
    for name in images:
        folder = name.partition("/")[0]
        if folder != name and folder.lower() in FOLDERS:
            found.setdefault(folder, []).append(name)
    return found


def _by_folders(path: Path, folders: dict[str, list[str]], images: dict) -> tuple[Splits, dict[str, str], list[str]]:
    """Return the splits that folders give, the folder of each, and notes for the screen."""
    inside = {name for names in folders.values() for name in names}
    if folders and len(inside) < len(images):
        outside = next(image for name, image in images.items() if name not in inside)
        some = f"{path}: the images in {', '.join(folders)} are a split by the folder's name, but {outside} is in none"
        raise UserError(f"{some}; move every image into train, val or test, rename these folders, or write lists")
    splits, where = {}, {}
    for folder, names in folders.items():
        splits.setdefault(FOLDERS[folder.lower()], []).extend(names)
        where[FOLDERS[folder.lower()]] = f"the folder {folder}"
    counts = ", ".join(f"{len(names)} in {folder}" for folder, names in folders.items())
    return splits, where, [f"the folders are the splits: {counts}"] * bool(folders)


def _listed(lists: dict[str, Path], images: dict[str, Path], problems: list[UserError]) -> Splits:
    """Return the splits that lists give."""
    splits = {split: _read_list(file, images, problems) for split, file in lists.items()}
    for a, b in itertools.combinations(splits, 2):
        for name in sorted({*splits[a]} & {*splits[b]}):
            sentence = f"{lists[a]} and {lists[b]} both name {name}; an image is in one split"
            problems.append(Problem("images in two lists", sentence))
    for split, names in splits.items():
        for folder, inside in _in_folders(dict.fromkeys(names)).items():
            if FOLDERS[folder.lower()] != split:
                sentence = f"{lists[split]} names {inside[0]}, which lies in the folder {folder}"
                sentence += "; move the lists away or rename the folder"
                problems.append(Problem("lists and folders that contradict each other", sentence))
    return splits


def _complete(path: Path, names: list[str], splits: Splits, where: dict[str, str]) -> tuple[Splits, list[str]]:
    """Draw the missing splits; return all three, and notes for the screen."""
    listed = {name for part in splits.values() for name in part}
    pool = splits.get("train") or [name for name in names if name not in listed]
    notes = []
    if "train" in splits and len(listed) < len(names):
        notes.append(f"{len(names) - len(listed)} images are in no list, so they are skipped")
    if "val" in splits and "test" in splits:
        if not pool:
            raise UserError(f"{path}: {where['val']} and {where['test']} have all images; leave some for training")
        return {"train": pool, "val": splits["val"], "test": splits["test"]}, notes
    if "val" in splits or "test" in splits:
        (test,) = (split for split in splits if split != "train")
        val, train = _draw(pool, 2, path)
        notes.append(f"{where[test]} is the test set; {len(val)} other images are drawn for validation")
        return {"train": train, "val": val, "test": splits[test]}, notes
    test, val, train = _draw(pool, 3, path)
    if "train" in splits:
        kind = "list" if where["train"] == "train.txt" else "split"
        notes.append(f"{where['train']} is the only {kind}; the validation and test images are drawn from it")
    else:
        notes.append("there are no lists, so the splits are drawn from a hash of the names")
    return {"train": train, "val": val, "test": test}, notes


def drawn_fold(names: list[str], fold: str, where: str) -> Splits:
    """Return the splits of one fold of a cross-validation.

    With "2/5", the test set is every fifth image in hashed order, from the second. Each of the folds 1/5 to 5/5
    validates on other images. With "kitchen", the test set is the folder kitchen, such as a new place, patient or film.

    Raises:
        UserError: `fold` is not a fold, or `where` has too few images for it.
    """
    number, count = (int(n) for n in fold.split("/")) if re.fullmatch(r"\d+/\d+", fold) else (0, 0)
    test = [name for name in names if name.startswith(f"{fold}/")]
    if 1 <= number <= count <= len(names):
        test = _shuffled(names)[number - 1 :: count]
    if not 0 < len(test) < len(names):
        folders = ", ".join(sorted({str(parent) for name in names for parent in PurePosixPath(name).parents} - {"."}))
        raise UserError(
            f"--fold {fold} is not possible with the {len(names)} images of {where}; 2/5 is the second fifth"
            + f", and a folder's name what is in it (there: {folders})" * bool(folders)
        )
    rest = sorted({*names} - {*test})
    val, train = _draw(rest, 2, where, start=(number - 1) * len(rest) // count if number else 0)
    return {"train": train, "val": val, "test": sorted(test)}


def _read_list(file: Path, images: dict[str, Path], problems: list[UserError]) -> list[str]:
    """Return the images that a list names, each once; the list may write their suffixes."""
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


def _draw(names: list[str], parts: int, where: Path | str, start: int = 0) -> list[list[str]]:
    """Divide `names` into non-empty `parts`: SHARE of the names in each part, the rest in the last one.

    `start` is the first position in hashed order.
    """
    if len(names) < parts:
        raise UserError(f"{where} has {len(names)} images to draw a split from, and needs {parts} at least")
    order, count = _shuffled(names), max(1, round(SHARE * len(names)))
    order = order[start:] + order[:start]
    cuts = [part * count for part in range(parts)]
    return [sorted(order[a:b]) for a, b in zip(cuts, [*cuts[1:], None], strict=True)]


def _shuffled(names: list[str]) -> list[str]:
    """Return `names` in the order of their hashes, which is the same on every machine."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
