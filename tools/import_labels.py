"""Convert the export of a labelling program to a folder that every experiment can train on.

    python -m tools.import_labels path/to/export path/to/folder
    python -m tools.import_labels instances.json path/to/folder --images path/to/photographs

    python -m tools.import_labels DRIVE path/to/folder --masks 1st_manual     # if there are two kinds of masks
    python -m tools.import_labels cells path/to/folder --binary     # one class, if the masks number the objects

The formats are LabelMe, COCO JSON, VIA, CVAT's XML, VOC's layout (CVAT's "Segmentation mask"), Label Studio's JSON and
PNGs, YOLO's polygons and tables of run lengths. Masks can also be pictures: one for each image, class or object.
docs/your-own.md explains how each format is recognised.

The folder gets images/, masks/, classes.txt, lists of the splits if the export has splits, and import.json, which lists
everything that was left out. The export does not change. A second call writes the same files again.
"""

import io
import os
import shutil
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.cli import cli
from common.datasets.formats import mask_files
from common.datasets.formats.labels import Item, Labels
from common.datasets.formats.pairs import pairings
from common.datasets.formats.recognise import recognise
from common.datasets.formats.source import OTHER, Source
from common.datasets.listing import ARRAYS, PHOTOS, describe, import_command, not_read
from common.datasets.reading import Problem, name_below, read_text, several_pages, upright_size
from common.labels import VOID, VOID_COLOR, voc_palette
from common.system.errors import UserError, more
from common.system.files import atomic, read_json, write_json, write_text

RECORD = "import.json"


def main(
    path: Path,  # the export, unpacked: a folder, or a file of labels
    out: Path,  # folder for the result, outside of the export
    images: str = "",  # folder of the images, in the export or elsewhere, or the end of their names
    masks: str = "",  # folder of the masks, or the end of their names
    binary: bool = False,  # make one class of all objects
    link: bool = False,  # make hard links to the images instead of copies; both must be on one disk
    show: int = 3,  # number of sentences to print about each kind of problem
):
    """Read the export, write the folder, and report what was left out."""
    labels, layout = read(path, images, masks, binary, out)
    items = named(labels)
    palette = [labels.colors.get(i, color) for i, color in enumerate(voc_palette(len(labels.names)))]
    lines = zip([*labels.names, "ignore"], [*palette, VOID_COLOR], strict=True)
    classes = "".join(f"{name} {' '.join(map(str, color))}\n" for name, color in lines)
    record = {"from": str(path.resolve()), "layout": layout}
    prepare(out, items, record, classes)
    written = write(out, items, labels, palette, link, binary)
    if not any(written.values()):
        for kind in ("images", "masks"):
            shutil.rmtree(out / kind, ignore_errors=True)
        (out / RECORD).unlink()
        first = next((f"{problem.kind}: {problem}" for problem in labels.left_out), "all of it is background or void")
        raise UserError(f"{path} has no image that shows an object; {first}")
    splits = write_splits(out, {name: items[name].split for name in written})
    write_text(out / "classes.txt", classes)
    groups = defaultdict(list)
    for problem in labels.left_out:
        groups[problem.kind].append(str(problem))
    write_json(out / RECORD, record | {"left out": groups})
    report(out, labels, groups, len(written), splits, show)


def read(path: Path, images: str, masks: str, binary: bool, out: Path) -> tuple[Labels, str]:
    """Return the labels in `path`, and the name of their format.

    Raises:
        UserError: no format fits; there are too many classes; `out` lies in the export.
    """
    for place in [path, *(Path(text) for text in (images, masks) if "/" in text and path.is_file())]:
        if not place.exists():
            raise UserError(f"{place} is missing")
    if path.suffix.lower() in (".zip", ".tar", ".gz", ".7z", ".rar"):
        raise UserError(f"{path} is an archive; unpack it, for example with `python -m zipfile -e {path} folder`")
    source = Source(path, images, masks, binary)
    for root in source.roots:
        if out.resolve().is_relative_to(root.resolve()) or root.resolve().is_relative_to(out.resolve()):
            raise UserError(f"{out} and {root}, which is read, lie in one another; write to another folder")
    layout, reason = recognise(source)
    if not layout:
        layout, reason = without_format(source)
    print(f"{path} is taken for {layout.NAME}: {reason}")
    try:
        labels = layout.read(source)
    except OTHER as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is not as {layout.NAME} should be ({reason}); export it again") from None
    if labels.boxes and not labels.outlines:
        sentence = "boxes have no outline, and a segmentation needs polygons or masks; draw these, or export them"
        raise UserError(f"{path} has {labels.boxes} boxes alone: {sentence} if the program has them")
    if binary:
        labels.names, labels.colors = ["background", "object"], {}
    if not 2 <= len(labels.names) <= VOID:
        raise UserError(f"{path} has {len(labels.names)} classes with the background; there can be 2 to {VOID}")
    listed = read_lists(source, labels)
    for item in labels.items:
        item.split = item.split or listed.get(item.image, "") or source.split(item.image.parent)
    labels.notes += [f"WARNING: {pages}"] if (pages := several_pages(source.pictures)) else []
    return labels, layout.NAME


def read_lists(source: Source, labels: Labels) -> dict[Path, str]:
    """Return the split of each image that train.txt, val.txt or test.txt names, if these files lie in the export.

    Raises:
        UserError: two lists name an image.
    """
    listed = {}
    for split in ("train", "val", "test"):
        file = source.root / f"{split}.txt"
        for name in filter(None, map(str.strip, read_text(file).splitlines() if file.is_file() else ())):
            try:
                image = labels.images.find(name, file)
            except Problem as problem:
                labels.left_out.append(problem)
                continue
            if listed.setdefault(image, split) != split:
                raise UserError(
                    f"{listed[image]}.txt and {split}.txt in {source.root} name {name}; correct one of them"
                )
    return listed


def without_format(source: Source) -> tuple[ModuleType, str]:
    """Return how to read a folder that needs no import; raise UserError for any other, and describe its files."""
    if damaged := source.damaged():
        raise damaged[0]
    if pairings(source):
        return mask_files, "images/ and masks/ lie as a training takes them, so that it needs no import"
    if other := not_read([file for file in source.others if file.suffix.lower() in PHOTOS | ARRAYS]):
        raise UserError(f"{source.root} holds {other}")
    folders = sorted({source.name(file.parent) for file in source.pictures})
    images, masks = folders if len(folders) == 2 else ("FOLDER", "FOLDER")
    raise UserError(
        f"{source.root} has no known layout; it holds {describe(source.root)}. If images and masks lie in two folders, "
        f"name them: {import_command(source.root, '--images', images, '--masks', masks)}; from a labelling program, "
        "export COCO JSON"
    )


def named(labels: Labels) -> dict[str, Item]:
    """Return the images by their paths, without suffix, below the folder that holds all; leave out repeated images."""
    items, twice = {}, set()
    folder = Path(os.path.commonpath([item.image.parent for item in labels.items])) if labels.items else Path()
    for item in labels.items:
        name = name_below(folder, item.image)
        if (first := items.setdefault(name, item)) is item:
            continue
        if first.image == item.image and first.split != item.split:
            twice.add(name)
            continue
        sentence = f"{item.image} has the name of {first.image}, which is taken"
        labels.left_out.append(Problem("images that come twice, or differ in the suffix alone", sentence))
    for name in sorted(twice):
        sentence = f"{items.pop(name).image} is in two splits; each image should be in one"
        labels.left_out.append(Problem("images in two splits", sentence))
    taken = {item.image for item in labels.items}
    unlabelled = (image for image in labels.images.files if image not in taken)
    labels.left_out += [Problem("images without labels", str(image)) for image in unlabelled]
    return items


def prepare(out: Path, items: dict[str, Item], record: dict, classes: str) -> None:
    """Start the record of this import in `out`; raise UserError if `out` holds anything else."""
    there = [file for file in out.rglob("*") if file.is_file() and file.name[0] != "."] if out.is_dir() else []
    earlier = read_json(out / RECORD)
    files = {out / name for name in (RECORD, "classes.txt", "train.txt", "val.txt", "test.txt")}
    for name, item in items.items():
        files |= {out / "masks" / f"{name}.png", out / "images" / f"{name}{item.image.suffix}"}
    if there and any(earlier.get(key) != value for key, value in record.items()):
        raise UserError(f"{out} holds {there[0].name}, which is of no import of {record['from']}; name a new folder")
    if others := [file for file in there if file not in files]:
        raise UserError(f"{out} holds {others[0]}{more(others)}, which this import does not write; name a new folder")
    if (file := out / "classes.txt").is_file() and read_text(file) != classes:
        raise UserError(f"{file} has been edited, or the labels have changed; name a new folder, or remove it")
    write_json(out / RECORD, record)


def write(
    out: Path, items: dict[str, Item], labels: Labels, palette: list, link: bool, binary: bool
) -> dict[str, bool]:
    """Write all images and masks; return, by name, whether the mask shows an object; add the others to the problems."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(palette)], colors[VOID] = palette, VOID_COLOR
    written = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda name: write_pair(out, name, items[name], colors, link, binary), items)
        bar = tqdm(results, "importing", len(items), unit=" images", disable=None, leave=False)
        for name, (shows, problems) in zip(items, bar, strict=True):
            labels.left_out += problems
            if shows is not None:
                written[name] = shows
    return written


def write_pair(out: Path, name: str, item: Item, colors: np.ndarray, link: bool, binary: bool) -> tuple:
    """Write image and mask of `item`; return whether the mask shows an object (None: not written), and the problems."""
    data = item.data() if item.data else None
    try:
        size = upright_size(item.image, io.BytesIO(data) if data else None)
        if item.size and item.size != size:
            sentence = "{} has {}x{} pixels upright, and is labelled for {}x{}".format(item.image, *size, *item.size)
            raise Problem("labels for another size than the image has", sentence)
        mask = np.zeros(size[::-1], dtype=np.uint8)
        problems = item.draw(mask)
    except Problem as problem:
        return None, [problem]
    except OTHER as error:
        sentence = f"{item.image} ({type(error).__name__}: {error})"
        return None, [Problem("images whose labels cannot be understood", sentence)]
    if binary:
        mask[(mask > 0) & (mask != VOID)] = 1
    picture = Image.fromarray(mask)
    picture.putpalette(colors.tobytes())
    with atomic(out / "masks" / f"{name}.png") as temporary:
        picture.save(temporary, format="PNG", compress_level=3)
    with atomic(out / "images" / f"{name}{item.image.suffix}") as temporary:
        temporary.unlink(missing_ok=True)
        if data:
            temporary.write_bytes(data)
        elif link:
            temporary.hardlink_to(item.image)
        else:
            shutil.copyfile(item.image, temporary)
    return bool(((mask > 0) & (mask != VOID)).any()), problems


def write_splits(out: Path, split_of: dict[str, str]) -> dict[str, int]:
    """Write lists of the splits, if there are train and another one; return the number of images in each list."""
    names = {split: [name for name in split_of if split_of[name] == split] for split in ("train", "val", "test")}
    names = {split: listed for split, listed in names.items() if listed}
    if "train" not in names or len(names) < 2:
        return {}
    for split, listed in names.items():
        write_text(out / f"{split}.txt", "\n".join(listed) + "\n")
    return {split: len(listed) for split, listed in names.items()}


def report(out: Path, labels: Labels, groups: dict, count: int, splits: dict[str, int], show: int) -> None:
    """Print the notes, the first problems of each kind, and the result."""
    for note in labels.notes:
        print(note)
    for kind, sentences in groups.items():
        print(f"\nleft out ({len(sentences)}): {kind}")
        print("\n".join(f"  {sentence}" for sentence in sentences[:show]))
        if len(sentences) > show:
            print(f"  and {len(sentences) - show} more, in {out / RECORD}")
    lists = ", ".join(f"{number} {split}" for split, number in splits.items())
    some = ", ".join(labels.names[:20]) + ", ..." * (len(labels.names) > 20)
    print(f"\n{out}: {count} images{f' ({lists})' if lists else ''}, {len(labels.names)} classes: {some}")
    print(f"`python -m tools.check {out}` looks at them")


if __name__ == "__main__":
    cli(main)
