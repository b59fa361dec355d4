"""Turn what a labelling program has exported into a folder that any experiment trains on.

    python -m tools.import_labels path/to/export path/to/folder
    python -m tools.import_labels instances.json path/to/folder --images path/to/photographs

    python -m tools.import_labels DRIVE path/to/folder --masks 1st_manual     # if there are two kinds of masks
    python -m tools.import_labels cells path/to/folder --binary     # one class, if the masks number the objects

Reads LabelMe, COCO JSON, VIA, CVAT's XML, VOC's layout (CVAT's "Segmentation mask"), Label Studio's JSON and PNGs,
YOLO's polygons, tables of run lengths, and masks that are pictures: beside the images or in other folders, one for each
image, class or object. docs/your-own.md tells how each is recognised.

Writes images/, masks/, classes.txt, lists of the splits where the export has them, and import.json, which tells all
that has been left out. Nothing of the export is changed. A second call writes the same again.
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
    path: Path,  # what the program has exported, unpacked: a folder, or its file of labels
    out: Path,  # folder that is written to; not in that of the export
    images: str = "",  # folder of the images, in the export or elsewhere, or the end of their names
    masks: str = "",  # folder of masks that are pictures, or the end of their names
    binary: bool = False,  # one class for all objects, instead of classes
    link: bool = False,  # make hard links to the images, not copies; this needs both on one disk
    show: int = 3,  # sentences of each kind that are printed
):
    """Read, write, and print what has been left out."""
    labels, layout = read(path, images, masks, binary, out)
    items = named(labels)
    palette = [labels.colors.get(i, color) for i, color in enumerate(voc_palette(len(labels.names)))]
    lines = zip([*labels.names, "ignore"], [*palette, VOID_COLOR], strict=True)
    classes = "".join(f"{name} {' '.join(map(str, color))}\n" for name, color in lines)
    record = {"from": str(path.resolve()), "layout": layout}
    prepare(out, items, record, classes)

    written = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda name: write(out, name, items[name], palette, link, binary), items)
        bar = tqdm(results, "importing", len(items), unit=" images", disable=None, leave=False)
        for name, (usable, problems) in zip(items, bar, strict=True):
            labels.left_out += problems
            written += [name] * usable
    if not written:
        (out / RECORD).unlink()
        first = next((f"{problem.kind}: {problem}" for problem in labels.left_out), "it lists none")
        raise UserError(f"{path} has no image that can be used; {first}")
    splits = {split: [name for name in written if items[name].split == split] for split in ("train", "val", "test", "")}
    lists = [split for split, names in splits.items() if split and names]
    lists = lists if splits["train"] and len(lists) > 1 else []  # one alone says nothing; folder.py draws them then
    for split in lists:
        write_text(out / f"{split}.txt", "\n".join(splits[split]) + "\n")
    write_text(out / "classes.txt", classes)
    groups = defaultdict(list)
    for problem in labels.left_out:
        groups[problem.kind].append(str(problem))
    write_json(out / RECORD, record | {"left out": groups})

    for note in labels.notes:
        print(note)
    for kind, sentences in groups.items():
        print(f"\nleft out ({len(sentences)}): {kind}")
        print("\n".join(f"  {sentence}" for sentence in sentences[:show]))
        if len(sentences) > show:
            print(f"  and {len(sentences) - show} more, in {out / RECORD}")
    counts = ", ".join(f"{len(splits[split])} {split}" for split in lists)
    counts = f"{len(written)} images" + f" ({counts})" * bool(counts)
    some = ", ".join(labels.names[:20]) + ", ..." * (len(labels.names) > 20)
    print(f"\n{out}: {counts}, {len(labels.names)} classes: {some}")
    print(f"`python -m tools.check {out}` looks at them")


def read(path: Path, images: str, masks: str, binary: bool, out: Path) -> tuple[Labels, str]:
    """Return the labels in `path`, and the name of their layout.

    Raises:
        UserError: there is none that is known; too many classes; `out` is among the files.
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
        layout, reason = ours(source)
    print(f"{path} is taken for {layout.NAME}: {reason}")
    try:
        labels = layout.read(source)
    except OTHER as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is not as {layout.NAME} should be ({reason}); export it again") from None
    if labels.outlined[False] and not labels.outlined[True]:
        raise UserError(
            f"{path} has {labels.outlined[False]} boxes alone: boxes have no outline, and a segmentation needs "
            "polygons or masks; draw these, or export them if the program has them"
        )
    if binary:
        labels.names, labels.colors = ["background", "object"], {}
    if not 2 <= len(labels.names) <= VOID:
        raise UserError(f"{path} has {len(labels.names)} classes with the background; there can be 2 to {VOID}")
    for item in labels.items:
        item.split = item.split or source.split(item.image.parent)
    labels.notes += [f"WARNING: {pages}"] if (pages := several_pages(source.pictures)) else []
    return labels, layout.NAME


def ours(source: Source) -> tuple[ModuleType, str]:
    """Return how to read a folder that is as a training takes it; raise UserError, and say what any other holds."""
    problems = []
    for _ in source.jsons(problems):
        pass
    if problems:
        raise problems[0]
    if pairings(source):
        return mask_files, "images/ and masks/ lie as a training takes them, so that it needs no import"
    if other := not_read([file for file in source.others if file.suffix.lower() in PHOTOS | ARRAYS]):
        raise UserError(f"{source.root} holds {other}")
    folders = sorted({source.name(file.parent) for file in source.pictures})
    images, masks = folders if len(folders) == 2 else ("FOLDER", "FOLDER")
    raise UserError(
        f"{source.root} is of no layout that is known; it holds {describe(source.root)}. If images and masks lie in "
        f"two folders, name them: {import_command(source.root, '--images', images, '--masks', masks)}; a labelling "
        "program's labels are best exported as COCO JSON"
    )


def named(labels: Labels) -> dict[str, Item]:
    """Return each image by its path below the folder that all are in, without suffix; leave out what comes twice."""
    items, twice = {}, set()
    folder = Path(os.path.commonpath([item.image.parent for item in labels.items])) if labels.items else Path()
    for item in labels.items:
        name = name_below(folder, item.image)
        if (first := items.setdefault(name, item)) is not item:
            if first.image == item.image and first.split != item.split:
                twice.add(name)
                continue
            sentence = f"{item.image} has the name of {first.image}, which is taken"
            labels.left_out.append(Problem("images that come twice, or differ in the suffix alone", sentence))
    for name in sorted(twice):
        sentence = f"{items.pop(name).image} is in two splits; each image should be in one"
        labels.left_out.append(Problem("images in two splits", sentence))
    taken = {item.image for item in labels.items}
    for image in labels.images.files:
        if image not in taken:
            labels.left_out.append(Problem("images without labels", str(image)))
    return items


def prepare(out: Path, items: dict[str, Item], record: dict, classes: str) -> None:
    """Begin the record of this import in `out`; raise UserError if that holds anything else than an earlier one."""
    there = [file for file in out.rglob("*") if file.is_file() and file.name[0] != "."] if out.is_dir() else []
    earlier = read_json(out / RECORD)
    files = {out / "masks" / f"{name}.png" for name in items} | {out / RECORD, out / "classes.txt"}
    files |= {out / "images" / f"{name}{item.image.suffix}" for name, item in items.items()}
    files |= {out / f"{split}.txt" for split in ("train", "val", "test")}
    if there and any(earlier.get(key) != value for key, value in record.items()):
        raise UserError(f"{out} holds {there[0].name}, which is of no import of {record['from']}; name a new folder")
    if others := [file for file in there if file not in files]:
        raise UserError(f"{out} holds {others[0]}{more(others)}, which this import does not write; name a new folder")
    if (file := out / "classes.txt").is_file() and read_text(file) != classes:
        raise UserError(f"{file} has been edited, or the labels have changed; name a new folder, or remove it")
    write_json(out / RECORD, record)


def write(out: Path, name: str, item: Item, palette: list, link: bool, binary: bool) -> tuple[bool, list[Problem]]:
    """Write image and mask of `item`; return whether it could be used, and what has been left out."""
    data = item.data() if item.data else None
    try:
        size = upright_size(item.image, io.BytesIO(data) if data else None)
        if item.size and item.size != size:
            sentence = "{} has {}x{} pixels upright, and is labelled for {}x{}".format(item.image, *size, *item.size)
            raise Problem("labels for another size than the image has", sentence)
        mask = np.zeros(size[::-1], dtype=np.uint8)
        problems = item.draw(mask)
        if binary:
            mask[(mask > 0) & (mask != VOID)] = 1
    except Problem as problem:
        return False, [problem]
    except OTHER as error:
        sentence = f"{item.image} ({type(error).__name__}: {error})"
        return False, [Problem("images whose labels cannot be understood", sentence)]
    picture, colors = Image.fromarray(mask), np.zeros((256, 3), dtype=np.uint8)
    colors[: len(palette)], colors[VOID] = palette, VOID_COLOR
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
    return True, problems


if __name__ == "__main__":
    cli(main)
