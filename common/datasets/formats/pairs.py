"""Find out which pictures are images, and which pictures are their masks.

Pictures form groups: by a folder, such as images/ and masks/, or by a word at an end of their names, such as _sat. The
key of a picture is its split and all words of its folders and its name. Words that one whole group has, and no picture
of the other group, are taken out of its keys. Two groups belong together if the keys then agree one to one. The group
with a name such as "masks" holds the masks, or else the group with far fewer colours.

Example: train/7_sat.jpg and train/7_mask.png have the keys (train, 7, sat) and (train, 7, mask). All images have "sat"
and all masks have "mask". Both keys become (train, 7), so the pictures are a pair.

If the images have one folder of masks for each class, the folders name the classes.
"""

import functools
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.datasets.formats.source import SPLIT, Source, split_word
from common.datasets.reading import open_image
from common.system.errors import UserError

JPEG = (".jpg", ".jpeg", ".jfif")
MASKS = re.compile(r"(?<![a-z])(mask|label|annotation|annot|ann|seg|segmentation|gt|groundtruth)s?(?![a-z])", re.I)
IMAGES = re.compile(r"(?<![a-z])(image|img|photo|photograph|picture)s?(?![a-z])", re.I)
SHOWN = re.compile(r"colou?r|instance|overlay|preview|visuali", re.I)  # drawings of the masks, for people
MANY = 20  # more folders than this are places or patients, not kinds of pictures
WORDS = (re.compile(r"[^\W_]+"), re.compile(r"[^\W\d_]+|\d+"))  # the second also divides im7 and mask7

Parts = tuple[
    str, list[list[str]], list[str]
]  # the split of a picture, the words of each folder, the words of its name


class Group:
    """Pictures that may be the images or the masks."""

    def __init__(self, name: str, files: list[Path], parts: dict[Path, Parts], *without: int | None):
        """Name the group by a folder or a word; its keys leave out the folders at the depths `without`."""
        self.name, self.files, self.parts, self.members, keys = name, files, parts, {*files}, []
        self.hint = bool(MASKS.search(name)) - bool(IMAGES.search(name))  # 1: masks, -1: images, 0: unknown
        for split, folders, stem in map(parts.get, files):
            kept = (words for depth, words in enumerate(folders) if depth not in without)
            keys.append((split, *itertools.chain.from_iterable(kept), *stem))
        words = [frozenset(key[1:]) for key in keys]
        self.in_all, self.in_any = frozenset.intersection(*words), frozenset.union(*words)
        self.keys_without = functools.cache(lambda own: [tuple(w for w in key if w not in own) for key in keys])


class Pairing(NamedTuple):
    """Two groups that belong together."""

    images: Group
    masks: Group
    pairs: dict[Path, tuple[Path, str]]  # mask -> image, and the folder that names the mask's class, or ""
    sure: int  # 2 if names and colours both tell which group is the masks, 1 if one of them does


@functools.lru_cache(maxsize=1)
def pairings(source: Source) -> list[Pairing]:
    """Return the groups of images and masks that belong together. Strict comparisons of names come first.

    Raises:
        UserError: an image has two candidates for its mask.
    """
    for words in WORDS:
        full = parts_of(source, words)
        names = {file: ("", [], name) for file, (_, _, name) in full.items()}
        for parts, by_word in itertools.product((full, names), (False, True)):
            if kept := best([*candidates(source, parts, by_word, words is WORDS[0])]):
                return kept
    return []


def parts_of(source: Source, words: re.Pattern) -> dict[Path, Parts]:
    """Return the words in the path of each picture."""
    found, folders = {}, {}
    for file in source.pictures:
        if (folder := file.parent) not in folders:
            names = [unicodedata.normalize("NFC", name) for name in source.folders(folder)]
            folders[folder] = source.split(folder), [words.findall(name) for name in names]
        split, above = folders[folder]
        stem = unicodedata.normalize("NFC", SPLIT.sub(" ", file.stem))
        found[file] = (split or split_word(file.stem), above, words.findall(stem))
    return found


def best(found: list[Pairing]) -> list[Pairing]:
    """Return the pairings that are most likely meant; no picture is in two of them."""
    found = [p for p in found if p.sure] or found
    found = [p for p in found if not SHOWN.search(p.masks.name + p.images.name)] or found
    masks = {mask for p in found for mask in p.pairs}
    found = [p for p in found if masks.isdisjoint(image for image, _ in p.pairs.values())] or found
    kept = []
    for p in sorted(found, key=lambda p: (-len(p.pairs), -p.sure)):
        if all(are_apart(p, q) for q in kept):
            kept.append(p)
    return kept


def are_apart(new: Pairing, kept: Pairing) -> bool:
    """Return whether two pairings have no image and no mask in common; `kept` has at least as many pairs.

    Raises:
        UserError: they overlap, and neither is the better choice.
    """
    image_of, kept_image_of = ({mask: image for mask, (image, _) in p.pairs.items()} for p in (new, kept))
    masks = image_of.keys() & kept_image_of.keys()
    images = {*image_of.values()} & {*kept_image_of.values()}
    if image_of.items() <= kept_image_of.items() or (masks and new.sure < kept.sure):
        return False
    for shared, may, flag, names in (
        (images, "may have its mask", "--masks", [new.masks.name, kept.masks.name]),
        (masks, "may be the mask of a picture", "--images", [new.images.name, kept.images.name]),
    ):
        if shared:
            a, b = sorted(names)
            raise UserError(f"{min(shared)} {may} in {a} or in {b}; say which with {flag} {a} or {flag} {b}")
    return True


def candidates(source: Source, parts: dict[Path, Parts], by_word: bool, by_class: bool) -> Iterator[Pairing]:
    """Yield the groups of images and masks with keys that agree.

    Args:
        by_word: also divide the folders' pictures by a word at an end of their names.
        by_class: also try one folder of masks for each class.
    """
    deepest = max((len(source.folders(folder)) for folder in {file.parent for file in parts}), default=0)
    for depth in [*range(deepest), None]:
        first, second = source.divided
        image_groups = mask_groups = groups(first, depth, source, parts, by_word)
        if second is not first:
            mask_groups = groups(second, depth, source, parts, by_word)
        for images, masks in itertools.product(image_groups, mask_groups):
            hint = masks.hint - images.hint
            few = by_word and 2 * len(images.files) < len(masks.files)  # a folder may have a mask for each class
            if (hint < 0 and not source.chosen) or few or not images.members.isdisjoint(masks.members):
                continue
            pairs = {mask: (image, "") for mask, image in match(images, masks).items()}
            if not pairs and by_class and depth is not None:
                pairs = match_classes(images, masks, depth, source)
            sure = (hint > 0) + (hint >= 0 and fewer_colours(pairs))
            if pairs and (sure or source.chosen):
                yield Pairing(images, masks, pairs, sure)


def groups(files: list[Path], depth: int | None, source: Source, parts: dict, by_word: bool) -> list[Group]:
    """Divide pictures by the folder at `depth`, and with `by_word` also by a word at an end of their names."""
    folders, found = {"": files} if depth is None else by_folder(files, depth, source), []
    for folder, members in folders.items() if files and len(folders) <= MANY else ():
        found.append(Group(folder, members, parts, depth))
        if not by_word:
            continue
        words = {file: [word for word in parts[file][2] if not word.isdecimal()] for file in members}
        ends = {file: {file.suffix, *letters[:1], *letters[-1:]} for file, letters in words.items()}
        for word, count in Counter(itertools.chain.from_iterable(ends.values())).most_common(5):
            if (count > 1 or MASKS.search(word)) and count < len(members):
                found.append(Group(word, [file for file in members if word in ends[file]], parts, depth))
                if depth is None:
                    found.append(Group(folder, [file for file in members if word not in ends[file]], parts, depth))
    return found


def by_folder(files: Iterable[Path], depth: int, source: Source) -> dict[str, list[Path]]:
    """Divide pictures by the folder at `depth`; "" if there is none."""
    found = defaultdict(list)
    for file in files:
        found[(source.folders(file.parent)[depth:] or [""])[0]].append(file)
    return found


def match(images: Group, masks: Group) -> dict[Path, Path]:
    """Return the image of each mask; nothing if the groups do not agree.

    An image may have more masks: their keys have a number behind the key of the first mask.
    """
    image_of = {}
    for key, file in zip(images.keys_without(images.in_all - masks.in_any), images.files, strict=True):
        image_of[key] = None if key in image_of else file
    keys = dict(zip(masks.files, masks.keys_without(masks.in_all - images.in_any), strict=True))
    pairs = {file: image_of[key] for file, key in keys.items() if len(key) > 1 and image_of.get(key)}
    paired = {*pairs.values()}
    if len(paired) < len(pairs) or 2 * len(pairs) < len(masks.files):
        return {}
    more = {file: image_of.get(key[:-1]) for file, key in keys.items() if file not in pairs and key[-1].isdecimal()}
    return pairs | {file: image for file, image in more.items() if image in paired}


def match_classes(images: Group, masks: Group, depth: int, source: Source) -> dict[Path, tuple[Path, str]]:
    """Return image and class of each mask, if every folder of masks below `depth` agrees with the images."""
    pairs, classes = {}, by_folder(masks.files, depth + 1, source)
    for name, files in classes.items():
        found = match(images, Group(name, files, masks.parts, depth, depth + 1))
        if not found or len(classes) < 2:
            return {}
        pairs |= {mask: (image, name) for mask, image in found.items()}
    return pairs


def fewer_colours(pairs: dict[Path, tuple[Path, str]]) -> bool:
    """Return whether masks have far fewer colours than their images, in three pairs."""
    some = itertools.islice(pairs.items(), 0, None, len(pairs) // 3 or 1)
    return all(2 * colours(mask) < colours(image) for mask, (image, _) in itertools.islice(some, 3))


@functools.cache
def colours(file: Path) -> int:
    """Return the number of colours in about 200 x 200 pixels of a picture; 0 if it cannot be read."""
    try:
        pixels = np.asarray(open_image(file).convert("RGB"))
    except UserError:
        return 0
    step = max(1, max(pixels.shape) // 200)
    return len(np.unique(pixels[::step, ::step].reshape(-1, 3), axis=0))
