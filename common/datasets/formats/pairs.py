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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class Group:
    """Pictures that may be images, or may be masks."""

    name: str  # a folder, or a word
    files: Sequence[Path]


class Pairing(NamedTuple):
    """Two groups that belong together."""

    images: Group
    masks: Group
    pairs: dict[Path, tuple[Path, str]]  # mask -> image, and the folder that is its class
    sure: int  # 1 if the names or the colours tell that the masks are no images, 2 if both do


@functools.lru_cache(maxsize=1)
def pairings(source: Source) -> list[Pairing]:
    """Return the groups of images and of masks that belong together.

    Raises:
        UserError: an image has two candidates for its mask.
    """
    for words, deep, ends in itertools.product(WORDS, (True, False), (False, True)):
        found = [*candidates(source, words, deep, ends)]
        found = [p for p in found if p.sure] or found
        found = [p for p in found if not SHOWN.search(p.masks.name + p.images.name)] or found
        masks = {mask for p in found for mask in p.pairs}
        found = [p for p in found if masks.isdisjoint(image for image, _ in p.pairs.values())] or found
        kept = []
        for p in sorted(found, key=lambda p: (-len(p.pairs), -p.sure)):
            if all(are_apart(p, q) for q in kept):
                kept.append(p)
        if kept:
            return kept
    return []


def are_apart(new: Pairing, kept: Pairing) -> bool:
    """Return whether two pairings have no picture in common; the new one has no more pairs.

    Raises:
        UserError: they do, and it is not clear which is meant.
    """
    links, others = ({mask: image for mask, (image, _) in p.pairs.items()} for p in (new, kept))
    masked, masks = {*links.values()} & {*others.values()}, {*links} & {*others}
    if links.items() <= others.items() or (masks and new.sure < kept.sure):
        return {*links, *links.values()}.isdisjoint({*others, *others.values()})
    for shared, sentence, flag, names in (
        (masked, "may have its mask", "--masks", {new.masks.name, kept.masks.name}),
        (masks, "may be the mask of a picture", "--images", {new.images.name, kept.images.name}),
    ):
        if shared:
            a, b = sorted(names) * (3 - len(names))
            raise UserError(f"{min(shared)} {sentence} in {a} or in {b}; say which with {flag} {a} or {flag} {b}")
    return True


def candidates(source: Source, words: re.Pattern, deep: bool, ends: bool) -> Iterator[Pairing]:
    """Yield groups whose names agree, by their words; with `deep`, by the folders they lie in, too.

    Args:
        ends: divide groups by the ends of names, too.
    """

    @functools.cache
    def told(file: Path) -> tuple[str, list[list[str]], list[str]]:
        """Return the split of a file, the words of each of its folders, and those of its name."""
        folders = [unicodedata.normalize("NFC", part) for part in source.folders(file)]
        stem = words.findall(unicodedata.normalize("NFC", SPLIT.sub(" ", file.stem)))
        return (source.split(file.parent, file), [*map(words.findall, folders)], stem) if deep else ("", [], stem)

    @functools.cache
    def keys(group: Group, *depths: int | None) -> tuple[list[tuple[str, ...]], frozenset[str], frozenset[str]]:
        """Return split and words of each file without some folders; the words that all have, and that any has."""
        found = []
        for split, folders, stem in map(told, group.files):
            inner = itertools.chain.from_iterable(part for depth, part in enumerate(folders) if depth not in depths)
            found.append((split, *inner, *stem))
        parts = [frozenset(key[1:]) for key in found]
        return found, frozenset.intersection(*parts), frozenset.union(*parts)

    @functools.cache
    def named(group: Group, own: frozenset[str], *depths: int | None) -> list[tuple[tuple[str, ...], Path]]:
        """Return what `keys` does, without the words `own`, with each file."""
        found = zip(keys(group, *depths)[0], group.files, strict=True)
        return [(tuple(word for word in key if word not in own), file) for key, file in found]

    def agree(images: Group, masks: Group, depth: int | None, own: int | None = None) -> dict[Path, Path]:
        """Return the image of each mask, or nothing. A second mask has a number behind the name of the first."""
        (_, image_all, image_any), (_, mask_all, mask_any) = keys(images, depth), keys(masks, depth, own)
        of, second = {}, named(masks, mask_all - image_any, depth, own)
        for key, file in named(images, image_all - mask_any, depth):
            of[key] = None if key in of else file
        pairs = {file: of[key] for key, file in second if len(key) > 1 and of.get(key)}
        taken = {*pairs.values()}
        if len(taken) < len(pairs) or 2 * len(pairs) < len(masks.files):
            return {}
        more = [(file, of.get(key[:-1])) for key, file in second if file not in pairs and key[-1].isdecimal()]
        return pairs | {file: image for file, image in more if image in taken}

    for depth in [*range(max((len(source.folders(file)) for file in source.pictures), default=0)), None]:
        kinds = [groups(files, depth, source, words if ends else None) for files in source.divided]
        for images, masks in itertools.product(*kinds):
            said = bool(MASKS.search(masks.name)) - bool(IMAGES.search(masks.name))
            said -= bool(MASKS.search(images.name)) - bool(IMAGES.search(images.name))
            few = 2 * len(images.files) < len(masks.files) and ends  # there may be a mask for each class
            if (said < 0 and not source.chosen) or few or not {*images.files}.isdisjoint(masks.files):
                continue
            pairs = {mask: (image, "") for mask, image in agree(images, masks, depth).items()}
            if not pairs and depth is not None and words is WORDS[0]:  # a folder for each class
                classes = by_folder(masks.files, depth + 1, source)
                found = {name: agree(images, Group(name, files), depth, depth + 1) for name, files in classes.items()}
                if len(found) > 1 and all(found.values()):
                    pairs = {mask: (image, name) for name in found for mask, image in found[name].items()}
            sure = (said > 0) + (said >= 0 and fewer_colours([*pairs.items()]))
            if pairs and (sure or source.chosen):
                yield Pairing(images, masks, pairs, sure)


def by_folder(files: Sequence[Path], depth: int, source: Source) -> dict[str, list[Path]]:
    """Divide pictures by the folder at `depth`."""
    found = defaultdict(list)
    for file in files:
        found[(source.folders(file)[depth:] or [""])[0]].append(file)
    return found


def groups(files: Sequence[Path], depth: int | None, source: Source, words: re.Pattern | None) -> list[Group]:
    """Divide pictures by a folder, and these by a word at an end of their names, or by their suffix."""
    folders, divided = {"": files} if depth is None else by_folder(files, depth, source), []
    for name, members in folders.items() if files and len(folders) <= MANY else ():
        divided.append(Group(name, members))
        if words:
            letters = {file: [word for word in words.findall(file.stem) if not word.isdecimal()] for file in members}
            of = {file: {file.suffix, *found[:1], *found[-1:]} for file, found in letters.items()}
            for word, count in Counter(word for ends in of.values() for word in ends).most_common(5):
                if (count > 1 or MASKS.search(word)) and count < len(members):
                    divided.append(Group(word, [file for file in members if word in of[file]]))
                    if depth is None:
                        divided.append(Group(name, [file for file in members if word not in of[file]]))
    return divided


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
