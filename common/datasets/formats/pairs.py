"""Which pictures of a folder are images, and which are their masks.

Pictures form groups: by one of the folders they lie in (images/, masks/), or by a word at an end of their names (_mask,
_sat). Two groups belong together if their names agree one to one after the words are taken out that all names of one
group have and no name of the other: image_1 and mask_1, 7_sat and 7_mask, left/7_left and gt/7_gt. The masks are the
group whose name says so, or else whose pictures have far fewer colours.

Folders of masks that the images do not have are classes, with a picture of an image in each.
"""

import functools
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.datasets.formats.source import SPLIT, Source
from common.datasets.reading import open_image
from common.system.errors import UserError

JPEG = (".jpg", ".jpeg", ".jfif")
MASKS = re.compile(r"(?<![a-z])(mask|label|annotation|annot|ann|seg|segmentation|gt|groundtruth)s?(?![a-z])", re.I)
IMAGES = re.compile(r"(?<![a-z])(image|img|photo|photograph|picture)s?(?![a-z])", re.I)
SHOWN = re.compile(r"colou?r|instance|overlay|preview|visuali", re.I)  # other pictures of the masks
MANY = 20  # groups that folders are divided into; more are places or patients
WORDS = (re.compile(r"[^\W_]+"), re.compile(r"[^\W\d_]+|\d+"))  # the second divides im7 and mask7


class Group(NamedTuple):
    """Pictures that may be images, or may be masks."""

    name: str  # a folder, or a word
    files: tuple[Path, ...]


class Pairing(NamedTuple):
    """Two groups that belong together."""

    images: Group
    masks: Group
    pairs: dict[Path, tuple[Path, str]]  # mask -> image, and the folder that is its class
    sure: bool  # that the masks are no images


def pairings(source: Source) -> list[Pairing]:
    """Return the groups of images and of masks that belong together.

    Raises:
        UserError: an image has two candidates for its mask.
    """
    for words, deep in itertools.product(WORDS, (True, False)):
        found = [*candidates(source, words, deep)]
        links = [{(mask, image) for mask, (image, _) in p.pairs.items()} for p in found]
        found = [p for i, p in enumerate(found) if not any(map(links[i].__lt__, links)) and links[i] not in links[:i]]
        for wanted in (lambda p: p.sure, lambda p: not SHOWN.search(p.masks.name + p.images.name), lambda p: p.images not in masks):
            masks = [p.masks for p in found]
            found = [*filter(wanted, found)] or found
        for p, q in itertools.combinations(found, 2):
            if shared := {image for image, _ in p.pairs.values()} & {image for image, _ in q.pairs.values()}:
                names = [p.masks.name, q.masks.name]
                raise UserError(
                    f"{min(shared)} may have its mask in {names[0]} or in {names[1]}; add --masks {names[0]} or --masks "
                    f"{names[1]}"
                )
            if {*p.pairs} & {*q.pairs}:
                raise UserError(
                    f"{min(p.pairs)} may be the mask of pictures in {p.images.name} or in {q.images.name}; add "
                    f"--images {p.images.name} or --images {q.images.name}"
                )
        if found:
            return found
    return []


def candidates(source: Source, words: re.Pattern, deep: bool) -> Iterator[Pairing]:
    """Yield groups whose names agree, by their words; with `deep`, by the folders they lie in, too."""

    @functools.cache
    def keys(files: tuple[Path, ...], *depths: int | None) -> tuple[list[tuple[str, ...]], set[str], set[str]]:
        """Return the words in the name of each file, without some of its folders; those of all and of any."""
        found = []
        for file in files:
            folders = [part for depth, part in enumerate(source.folders(file)) if deep and depth not in depths]
            text = unicodedata.normalize("NFC", "/".join([*folders, SPLIT.sub(" ", file.stem)]))
            found.append((source.split(file.parent, file) * deep, *words.findall(text)))
        parts = [set(key[1:]) for key in found]
        return found, set.intersection(*parts), set.union(*parts)

    def agree(images: Group, masks: Group, depth: int | None, own: int | None) -> dict[Path, Path]:
        """Return the image of each mask, or nothing. A second mask has a number behind the name of the first."""
        (image_keys, image_all, image_any), (mask_keys, mask_all, mask_any) = (
            keys(images.files, depth),
            keys(masks.files, depth, own),
        )
        pairs, more, named = {}, [], {}
        for key, file in zip(image_keys, images.files, strict=True):
            key = tuple(word for word in key if word not in image_all - mask_any)
            named[key] = None if key in named else file
        for key, file in zip(mask_keys, masks.files, strict=True):
            key = tuple(word for word in key if word not in mask_all - image_any)
            if key in named and len(key) > 1:
                pairs[file] = named[key]
            elif key[-1].isdecimal() and named.get(key[:-1]):
                more.append((file, named[key[:-1]]))
        one_to_one = None not in pairs.values() and len({*pairs.values()}) == len(pairs) >= len(masks.files) / 2
        return pairs | {file: image for file, image in more if image in pairs.values()} if one_to_one else {}

    for depth in [*range(max((len(source.folders(file)) for file in source.pictures), default=0)), None]:
        kinds = [groups(files, depth, source) for files in source.divided]
        for images, masks in itertools.product(*kinds):
            said = bool(MASKS.search(masks.name)) - bool(IMAGES.search(masks.name))
            said -= bool(MASKS.search(images.name)) - bool(IMAGES.search(images.name))
            if 2 * len(images.files) < len(masks.files) or not {*images.files}.isdisjoint(masks.files):
                continue
            if said < 0 and not source.chosen:
                continue
            pairs = {mask: (image, "") for mask, image in agree(images, masks, depth, None).items()}
            if not pairs and depth is not None:  # a folder for each class
                classes = groups(masks.files, depth + 1, source, ends=False)
                found = {group.name: agree(images, group, depth, depth + 1) for group in classes}
                if len(found) > 1 and all(found.values()):
                    pairs = {mask: (image, name) for name in found for mask, image in found[name].items()}
            sure = bool(pairs) and (said > 0 or said == 0 and fewer_colours([*pairs.items()]))
            if pairs and (sure or source.chosen):
                yield Pairing(images, masks, pairs, sure)


def groups(files: list[Path], depth: int | None, source: Source, ends: bool = True) -> list[Group]:
    """Divide pictures by a folder they lie in, and these by a word at an end of their names, or by their suffix."""
    folders, found = defaultdict(list), []
    for file in files:
        folders[(source.folders(file)[depth:] or [""])[0] if depth is not None else ""].append(file)
    for name, members in folders.items() if len(folders) <= MANY else ():
        found.append(Group(name, tuple(members)))
        if not ends:
            continue
        letters = {file: [word for word in WORDS[0].findall(file.stem) if not word.isdecimal()] for file in members}
        of = {file: {file.suffix, *words[:1], *words[-1:]} for file, words in letters.items()}
        counts = Counter(word for words in of.values() for word in words)
        for word, count in counts.most_common(5):
            if (count > 1 or MASKS.search(word)) and count < len(members):
                found.append(Group(word, tuple(file for file in members if word in of[file])))
                if depth is None:
                    found.append(Group(name, tuple(file for file in members if word not in of[file])))
    return found


@functools.cache
def colours(file: Path) -> int:
    """Return how many colours a picture has, at about 200 x 200 of its pixels; 0 if it cannot be read."""
    try:
        pixels = np.asarray(open_image(file).convert("RGB"))
    except UserError:
        return 0
    step = max(1, max(pixels.shape) // 200)
    return len(np.unique(pixels[::step, ::step].reshape(-1, 3), axis=0))


def fewer_colours(pairs: list[tuple[Path, tuple[Path, str]]]) -> bool:
    """Return whether masks have far fewer colours than their images, in three pairs."""
    return all(2 * colours(mask) < colours(image) for mask, (image, _) in pairs[:: len(pairs) // 3 or 1][:3])
