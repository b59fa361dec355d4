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
masks or the grey levels 0, 128 and 255, must be listed, each with its colour: `python -m tools.check folder` proposes
lines, and writes them with --write-classes. Masks of 0 and 255 alone tell background from foreground, listed or not.

Folders can be the splits: images/train, images/val and images/test with masks/train, ..., or train/images and
train/masks, val/images, ... The names training, valid, validation and testing mean the same, in capitals, too.

Without folders, lists are the splits. A list that is missing is drawn, in the order of a hash of the names, so that few
images move when others are added: 15 % of the images to validate on, 15 % as test. With two lists, val.txt or test.txt
is the test, and what to validate on is drawn from the rest; so it is with two folders. If there is a train.txt, images
that no list names are left out. A list may not contradict a folder.

If no image of the test has a mask, as in a course that keeps the answers back, the test is predicted, not scored.
"""

import re
from pathlib import Path

from common.datasets.listing import describe, import_command
from common.datasets.mask_classes import interpret, read_classes
from common.datasets.mask_contents import scan
from common.datasets.reading import NOT_A_MASK, Problem, files_by_name, several_pages
from common.datasets.segmentation_set import DatasetSpec
from common.datasets.splits import FOLDERS, find_splits
from common.system.errors import UserError


def folder(path: Path, cache_dir: Path, progress: bool = True, fold: str = "") -> DatasetSpec:
    """Return the set in the folder `path`, as described above.

    The masks are looked through at the first call, and what is found is kept in `cache_dir`.

    Args:
        fold: as `drawn_fold` takes it, if there are no lists and no folders of splits.

    Raises:
        UserError: a folder or a counterpart that is missing, two files of one name, a list or classes.txt that cannot
            be understood, masks that do not fit it.
    """
    problems = []
    spec = inspect(path, cache_dir, problems, progress, fold)
    if problems:
        more = f" (and {len(problems) - 1} more problems; `python -m tools.check {path}` tells all)"
        raise UserError(f"{problems[0]}{more * (len(problems) > 1)}")
    return spec


def inspect(
    path: Path, cache_dir: Path, problems: list[UserError], progress: bool = True, fold: str = ""
) -> DatasetSpec:
    """Return what is sound in the folder `path`, as `folder` does, and add what is wrong to `problems`.

    Faults of the image files are not among them: reading the files tells those. If the masks do not tell classes, all
    their pixels are void.

    Raises:
        UserError: there is nothing to go on with.
    """
    images, masks, below = _find(path, problems)
    if masks.keys().isdisjoint(images):
        some = f"such as {next(iter(images.values()))} and {next(iter(masks.values()))}"
        raise UserError(
            f"no mask has the name of an image, {some}; try {import_command(path)}, which pairs other names"
        )
    splits, where, notes = find_splits(path, images, problems, fold)
    if splits["test"] and "test" in where and masks.keys().isdisjoint(splits["test"]):
        count = len(splits["test"])
        notes.append(f"the {count} images of {where['test']} have no masks: they can be predicted, not scored")
        masks |= dict.fromkeys(splits["test"])
    names = [name for split in splits.values() for name in split]
    for name in names:
        if name not in masks:
            place = f"{path}/{(below + name).replace('images/', 'masks/', 1)}.png"
            sentence = f"{images[name]} has no mask; expected {place}, or another suffix"
            problems.append(Problem("images without a mask", sentence))
    if not any((path / f"{split}.txt").is_file() for split in splits):
        for name in masks.keys() - images.keys():
            sentence = f"{masks[name]} has no image; expected {path}/{below}{name}.jpg, or another suffix"
            problems.append(Problem("masks without an image", sentence))
    found = scan([(name, masks[name]) for name in names if masks.get(name)], cache_dir, progress)
    problems += found.unread
    listed = read_classes(path / "classes.txt")
    partial = any(problem.kind == NOT_A_MASK for problem in found.unread)  # what the other masks hold says nothing then
    classes, palette, label_map, said = interpret(found.held, listed, path, [] if partial else problems)
    warnings = [several_pages(file for name in names for file in (images[name], masks.get(name)) if file)]
    named = not all(re.fullmatch(r"background|(class|value) ?\d+", name) for name in listed.names)  # by a person
    if found.objects and not named:
        warnings.append(f"{found.objects}; {import_command(path, '--binary')} makes them one class")
    samples = {
        split: [(name, images[name], masks[name]) for name in names if name in masks] for split, names in splits.items()
    }
    return DatasetSpec(classes, palette, samples, label_map, (*notes, *said), warnings=tuple(filter(None, warnings)))


def _find(path: Path, problems: list[UserError]) -> tuple[dict[str, Path], dict[str, Path], str]:
    """Return images and masks by name, and the folder below `path` that names begin in: "images/", or "" for all."""
    places = sorted(place for place in path.iterdir() if place.name.lower() in FOLDERS and (place / "images").is_dir())
    if (path / "images").is_dir() or not any((place / "masks").is_dir() for place in places):
        for kind in (path / "images", path / "masks"):
            if not kind.is_dir():
                there = f"{path} holds {describe(path)}, and a training needs the folders images and masks"
                raise UserError(f"{kind} is missing: {there}; try {import_command(path)}, which makes them")
        return files_by_name(path / "images", problems), files_by_name(path / "masks", problems), "images/"
    images, masks = {}, {}
    for place in places:
        for kind, found in (("images", images), ("masks", masks)):
            if (place / kind).is_dir():
                files = files_by_name(place / kind, problems)
                found |= {f"{place.name}/images/{name}": file for name, file in files.items()}
    return images, masks, ""
