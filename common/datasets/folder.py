"""Your own images: a folder with images/, masks/ and, if you like, lists of the splits and names of the classes.

    photos/
        images/     a.jpg, trip/b.PNG, ...   in any subfolders; any common image format
        masks/      a.png, trip/b.png, ...   one for each image: same size, same name, any suffix
        classes.txt                          optional: one class a line
        train.txt, val.txt, test.txt         optional: one image a line, by its name without suffix, trip/b

Classes. A line of classes.txt is `name`, `name red green blue` or `name #rrggbb`. Without colours, line i, counted from
0, stands for mask value i; with colours, for the pixels of that colour. `ignore 255`, or `ignore` with a colour, marks
void pixels: they are neither trained on nor scored. Without such a line, 255 is void. A comment begins with `#` at the
start of a line, or with ` # `.

Palette masks are read by colour if classes.txt lists all their colours, otherwise by value.

Without classes.txt, masks must hold the values 0, 1, 2, ... and perhaps 255. All other masks, such as RGB masks or grey
levels 0, 128 and 255, need a classes.txt with a colour for each class. `python -m tools.check folder` proposes its
lines; --write-classes writes them. Masks with only 0 and 255 mean background and foreground, with or without the file.

Splits. Folders may give the splits: images/train, images/val and images/test with masks/train, ..., or train/images and
train/masks, val/images, ... The names training, valid, validation and testing work too, in upper or lower case.

The lists train.txt, val.txt and test.txt may give the splits instead. Missing splits are drawn: 15 % of the images for
validation, 15 % for the test. Images are drawn by a hash of their name, so adding images changes the split of few
others. With only one of val.txt and test.txt, it is the test set, and validation images are drawn from the rest; this
holds for folders, too. If train.txt exists, images in no list are left out. A list may not contradict a folder.

If no test image has a mask, as in a course that hides the answers, the test set is predicted, not scored.
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
    """Return the data set in the folder `path`, as described above.

    The first call reads all masks and keeps a summary in `cache_dir`.

    Args:
        fold: as in `drawn_fold`; only without lists and split folders.

    Raises:
        UserError: a folder, an image or a mask is missing; two files have one name; a list or classes.txt cannot be
            understood; the masks do not fit classes.txt.
    """
    problems = []
    spec = inspect(path, cache_dir, problems, progress, fold)
    if problems:
        more = f" (and {len(problems) - 1} more problems; `python -m tools.check {path}` lists all)"
        raise UserError(f"{problems[0]}{more * (len(problems) > 1)}")
    return spec


def inspect(
    path: Path, cache_dir: Path, problems: list[UserError], progress: bool = True, fold: str = ""
) -> DatasetSpec:
    """Return the usable part of the folder `path`, as `folder` does, and add the faults to `problems`.

    The image files themselves are not read here. If the masks do not tell the classes, all their pixels are void.

    Raises:
        UserError: the folder has no usable part.
    """
    images, masks, below = _find(path, problems)
    if masks.keys().isdisjoint(images):
        some = f"for example {next(iter(images.values()))} and {next(iter(masks.values()))}"
        raise UserError(
            f"no mask has the name of an image, {some}; try {import_command(path)}, which pairs different names"
        )
    splits, where, notes = find_splits(path, images, problems, fold)
    if splits["test"] and "test" in where and masks.keys().isdisjoint(splits["test"]):
        count = len(splits["test"])
        notes.append(f"the {count} images of {where['test']} have no masks: they can be predicted but not scored")
        masks |= dict.fromkeys(splits["test"])
    names = [name for split in splits.values() for name in split]
    problems += _unpaired(path, images, masks, below, names)
    found = scan([(name, masks[name]) for name in names if masks.get(name)], cache_dir, progress)
    problems += found.unread
    listed = read_classes(path / "classes.txt")
    # With unreadable masks, the values of the others do not tell the classes: report no problem about them.
    partial = any(problem.kind == NOT_A_MASK for problem in found.unread)
    classes, palette, label_map, said = interpret(found.held, listed, path, [] if partial else problems)
    files = [file for name in names for file in (images[name], masks.get(name)) if file]
    warnings = several_pages(files), _objects_warning(path, found.objects, listed.names)
    samples = {
        split: [(name, images[name], masks[name]) for name in names if name in masks] for split, names in splits.items()
    }
    return DatasetSpec(classes, palette, samples, label_map, (*notes, *said), warnings=tuple(filter(None, warnings)))


def _unpaired(path: Path, images: dict, masks: dict, below: str, names: list[str]) -> list[Problem]:
    """Return a problem for each image without a mask and, unless lists leave images out, for each mask without one."""
    problems = []
    for name in names:
        if name not in masks:
            place = f"{path}/{(below + name).replace('images/', 'masks/', 1)}.png"
            sentence = f"{images[name]} has no mask; expected {place} (any suffix)"
            problems.append(Problem("images without a mask", sentence))
    if not any((path / f"{split}.txt").is_file() for split in ("train", "val", "test")):
        for name in masks.keys() - images.keys():
            sentence = f"{masks[name]} has no image; expected {path}/{below}{name}.jpg (any suffix)"
            problems.append(Problem("masks without an image", sentence))
    return problems


def _objects_warning(path: Path, objects: str, names: list[str]) -> str:
    """Return the warning that masks number their objects, unless classes.txt has names written by hand."""
    named_by_hand = not all(re.fullmatch(r"background|(class|value) ?\d+", name) for name in names)
    return (
        f"{objects}; {import_command(path, '--binary')} makes them one class" if objects and not named_by_hand else ""
    )


def _find(path: Path, problems: list[UserError]) -> tuple[dict[str, Path], dict[str, Path], str]:
    """Return images and masks by name, and the folder that names are relative to: "images/", or "" for `path`."""
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
