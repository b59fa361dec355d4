"""Describe the files in a folder, and name the command that imports them."""

import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

PHOTOS = {".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".psd"}
ARRAYS = {".npy", ".npz", ".mat", ".dcm", ".nii", ".h5", ".hdf5", ".exr"}


def describe(folder: Path) -> str:
    """Return the folders below `folder` with the number and suffixes of their files: "PNGImages/ (6 .png)"."""
    kinds = {}
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if file.is_file() and not any(part[0] == "." for part in parts):
            kinds.setdefault("/".join([*parts[:-1], ""]), Counter())[file.suffix] += 1
    places = [f"{place} ({_kinds(counts)})" if place else _kinds(counts) for place, counts in kinds.items()]
    return ", ".join(places[:6]) + ", ..." * (len(places) > 6) or "nothing"


def not_read(files: Iterable[Path]) -> str:
    """Return the number of `files` per suffix, and how to convert them; "" if there are none."""
    if not (counts := Counter(file.suffix for file in files)):
        return ""
    kind, lower = counts.most_common(1)[0][0], counts.most_common(1)[0][0].lower()
    remedy = "save them as JPEG, or as PNG if they are masks"
    if lower in PHOTOS:
        remedy = f"convert them to JPEG, for example with `magick mogrify -format jpg *{kind}`; masks to PNG"
    if lower in ARRAYS:
        remedy = "save each array as PNG, for example with Image.fromarray(array.astype('uint8')).save('a.png')"
    return f"{_kinds(counts)} files, which are not read; {remedy}"


def import_command(path: Path, *flags: str) -> str:
    """Return, in backticks, the command that converts the folder `path` to images/ and masks/."""
    place = path if path.name else path.resolve()
    out = place.with_name(f"{place.name}-imported")
    return f"`{shlex.join(['python', '-m', 'tools.import_labels', str(path), str(out), *flags])}`"


def _kinds(counts: Counter) -> str:
    return ", ".join(f"{count} {kind or '(no ending)'}" for kind, count in counts.most_common(3))
