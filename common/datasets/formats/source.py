"""The files of an export. Labels name their images in many ways; this module finds the image that is meant."""

import functools
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from common.datasets.reading import Problem, find_files
from common.system.errors import UserError, more

FEW = 5  # number of JSON files that are opened to recognise a format
SPLIT = re.compile(
    r"(?<![a-z])(train|val|test)(?:ing|id|idation)?(?=$|[^a-z]|annot|mask|label|image|img)",  # trainannot, trainmasks
    re.IGNORECASE,
)
OTHER = (LookupError, TypeError, ValueError, AttributeError)  # raised when a file has another structure
HASH = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts this before the names of uploaded files


class Images:
    """Image files, found by the names that labels give them."""

    def __init__(self, files: Iterable[Path]):
        self.files, self._named = list(files), defaultdict(list)
        self._folders = {file.parent for file in self.files}
        for file in self.files:
            for key in {unicodedata.normalize("NFC", key) for key in (file.name, file.stem)}:
                self._named[key].append(file)

    def find(self, name: object, near: Path) -> Path:
        """Return the image that the file `near` calls `name`: a path of any system, with or without suffix.

        Compare file names first. If several images have the name, compare their folders.

        Raises:
            Problem: no image has this name, or several images fit equally well.
        """
        parts = re.split(r"[/\\=]", unicodedata.normalize("NFC", str(name)))  # Label Studio writes ?d=photos/a.jpg
        files = self._named.get(parts[-1]) or self._named.get(HASH.sub("", parts[-1])) or []
        if len(parts) == 1 and near.parent in self._folders:  # the images lie beside their labels
            files = [file for file in files if file.is_relative_to(near.parent)]
        folders = {*near.parent.parts, *parts[:-1]}
        scores = [len(folders.intersection(file.parent.parts)) - len(file.parts) / 1000 for file in files]
        names = f"{near} names {str(name)!r:.200}, which"
        if not files:
            raise Problem("images that are listed and not there", f"{names} is not there; is it elsewhere (--images)?")
        if scores.count(max(scores)) > 1:
            raise Problem("names that several images have", f"{names} may be {files[0]}{more(files)}")
        return files[scores.index(max(scores))]


class Source:
    """A folder with all its files, or one file of labels with the images beside it.

    Args:
        path: the folder or the file.
        images: a folder of images, in the export or elsewhere; or a folder name in the export, or an end of file names.
        masks: the same for masks.
        binary: all objects are one class.
    """

    def __init__(self, path: Path, images: str = "", masks: str = "", binary: bool = False):
        self.root, self.binary, self.chosen = path if path.is_dir() else path.parent, binary, bool(images or masks)
        given = [Path(text) for text in (images, masks) if text and Path(text).is_dir()]
        self.roots = given if images and path.is_file() else [self.root, *given]
        files = {folder: find_files(folder) for folder in self.roots}
        self.others = files[path][1] if path.is_dir() else [path]
        self.pictures = [file for pictures, _ in files.values() for file in pictures]
        if given:  # the folders may overlap
            self.pictures = [*{file.resolve(): file for file in self.pictures}.values()]
        first, second = (self.select(text) if text else [] for text in (images, masks))
        rest = sorted({*self.pictures} - {*first, *second}) if given or first or second else self.pictures
        self.divided = (first or rest, second or rest)  # pictures that may be images, and that may be masks

    @functools.cached_property
    def images(self) -> Images:
        """Return the pictures that may be images."""
        return Images(self.divided[0])

    def select(self, text: str) -> list[Path]:
        """Return the pictures in the folder `text`, in folders of this name, or with this end of their names.

        Raises:
            UserError: there are none.
        """
        if Path(text).is_dir():
            found = [file for file in self.pictures if file.resolve().is_relative_to(Path(text).resolve())]
        else:
            found = [file for file in self.pictures if f"/{text.strip('/')}/" in f"/{self.name(file)}"]
        found = found or [file for file in self.pictures if file.stem.endswith(text) or text == file.suffix]
        if not found:
            raise UserError(f"{text} is no folder with pictures, here or in {self.root}, and no end of their names")
        return found

    def name(self, path: Path) -> str:
        """Return the path of a file or folder below the export, or below a folder that the user has named."""
        for folder in self.roots:
            if path.is_relative_to(folder):
                return (Path(folder.name if folder != self.root else "") / path.relative_to(folder)).as_posix()
        return str(path)

    @functools.cache  # noqa: B019
    def folders(self, folder: Path) -> list[str]:
        """Return the names of a folder and the folders above it in the export, without words for splits."""
        parts = [SPLIT.sub("", part).strip(" _-.") for part in self.name(folder).split("/")]
        return [part for part in parts if part]

    @functools.cache  # noqa: B019
    def split(self, *paths: Path) -> str:
        """Return the split that the paths below the export name: "train", "val", "test", or ""; the first path wins."""
        parts = [part for path in paths for part in reversed(self.name(path).split("/"))]
        return next(filter(None, map(split_word, parts)), "")

    def jsons(self, problems: list[Problem], limit: int | None = None) -> Iterator[tuple[Path, object]]:
        """Yield path and content of the first `limit` JSON files; add a problem for each damaged file."""
        files = [file for file in self.others if file.suffix.lower() == ".json"][:limit]
        for file in tqdm(files, "reading labels", unit=" files", leave=False, disable=True if limit else None):
            try:
                yield file, load_json(file)
            except Problem as problem:
                problems.append(problem)

    def damaged(self) -> list[Problem]:
        """Return a problem for each JSON file that cannot be read."""
        problems = []
        for _ in self.jsons(problems):
            pass
        return problems

    def objects(self, keys: Iterable[str], problems: list[Problem], limit: int | None = None) -> Iterator:
        """Yield path and content of each JSON file with an object that has `keys`; add a problem for the others."""
        for file, content in self.jsons(problems, limit):
            if isinstance(content, dict) and content.keys() >= {*keys}:
                yield file, content
            else:
                problems.append(Problem(f"JSON files without {' and '.join(keys)}", str(file)))

    def has(self, keys: Iterable[str]) -> str:
        """Return a sentence if one of the first JSON files holds an object with `keys`, else ""."""
        found = next(self.objects(keys, [], FEW), None)
        return f"{self.name(found[0])} has {' and '.join(keys)}" if found else ""


def split_word(text: str) -> str:
    """Return the split that a name contains: "train", "val", "test", or ""."""
    return found[1].lower() if (found := SPLIT.search(text)) else ""


@functools.lru_cache(maxsize=1)  # recognising and reading open the same file
def load_json(file: Path) -> object:
    """Return the content of a JSON file in UTF-8, UTF-16 or UTF-32; raise Problem if it is damaged."""
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise Problem("files that cannot be read", f"{file} is no JSON ({error}); export it again") from None
