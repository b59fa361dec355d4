"""The files of an export, and which of its images a name means."""

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

FEW = 5  # JSON files that are looked into to recognise a format
SPLIT = re.compile(
    r"(?<![a-z])(train|val|test)(?:ing|id|idation)?(?=$|[^a-z]|annot|mask|label|image|img)",  # trainannot, trainmasks
    re.IGNORECASE,
)
OTHER = (LookupError, TypeError, ValueError, AttributeError)  # what files of another structure lead to
HASH = re.compile(r"^[0-9a-f]{8}-")  # Label Studio's, before the name of a file that was uploaded


class Images:
    """Image files, to be found by the names that labels give them."""

    def __init__(self, files: Iterable[Path]):
        self.files, self._named = list(files), defaultdict(list)
        self._folders = {file.parent for file in self.files}
        for file in self.files:
            for key in {unicodedata.normalize("NFC", key) for key in (file.name, file.stem)}:
                self._named[key].append(file)

    def find(self, name: object, near: Path) -> Path:
        """Return the image that the file `near` calls `name`: a path of any system, with or without suffix.

        Names of files are compared, and of folders where several agree: what is found is never outside the export.

        Raises:
            Problem: it is not there, or it is not clear which is meant.
        """
        parts = re.split(r"[/\\=]", unicodedata.normalize("NFC", str(name)))  # = of Label Studio's ?d=photos/a.jpg
        files = self._named.get(parts[-1]) or self._named.get(HASH.sub("", parts[-1])) or []
        if len(parts) == 1 and near.parent in self._folders:  # images lie beside their labels
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
    """A folder with all in it, or one file of labels beside its images.

    Args:
        path: of the folder or the file.
        images: the folder of the images, in the export or elsewhere; or the name of such folders in the export, or a
            word at the end of the names of images.
        masks: the same, for masks that are pictures.
        binary: all objects are one class.
    """

    def __init__(self, path: Path, images: str = "", masks: str = "", binary: bool = False):
        self.root, self.binary, self.chosen = path if path.is_dir() else path.parent, binary, bool(images or masks)
        alone = images and path.is_file()  # the file's folder may be any
        given = [Path(text) for text in (images, masks) if text and Path(text).is_dir()]
        self.roots = [folder for folder in (None if alone else self.root, *given) if folder]
        files = {folder: find_files(folder) for folder in self.roots}
        self.others = [file for file in files.get(self.root, ((), ()))[1] if path.is_dir()] or [path] * path.is_file()
        found = {file.resolve(): file for pictures, _ in files.values() for file in pictures}  # folders may overlap
        self.pictures = list(found.values())
        first, second = (self.select(text) if text else [] for text in (images, masks))
        rest = sorted({*self.pictures} - {*first, *second})
        self.divided = (first or rest, second or rest)  # pictures that may be images, and that may be masks
        self.images = Images(self.divided[0])

    def select(self, text: str) -> list[Path]:
        """Return the pictures in a folder, in folders of this name in the export, or with this end of their names.

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

    @functools.cache  # noqa: B019
    def name(self, file: Path) -> str:
        """Return the path of a file below the export, or below the folder that the user has named."""
        for folder in self.roots:
            if file.is_relative_to(folder):
                return (Path(folder.name if folder != self.root else "") / file.relative_to(folder)).as_posix()
        return str(file)

    @functools.cache  # noqa: B019
    def folders(self, file: Path) -> list[str]:
        """Return the names of the folders that a file lies in, without the words for a split."""
        parts = [SPLIT.sub("", part).strip(" _-.") for part in self.name(file).split("/")[:-1]]
        return [part for part in parts if part]

    def jsons(self, problems: list[Problem], limit: int | None = None) -> Iterator[tuple[Path, object]]:
        """Yield path and contents of the first JSON files; those that cannot be read are added to `problems`."""
        files = [file for file in self.others if file.suffix.lower() == ".json"][:limit]
        for file in tqdm(files, "reading labels", unit=" files", leave=False, disable=True if limit else None):
            try:
                yield file, load_json(file)
            except Problem as problem:
                problems.append(problem)

    def objects(self, keys: Iterable[str], problems: list[Problem], limit: int | None = None) -> Iterator:
        """Yield what `jsons` does of the files that hold an object with `keys`, and add the others to `problems`."""
        for file, content in self.jsons(problems, limit):
            if isinstance(content, dict) and content.keys() >= {*keys}:
                yield file, content
            else:
                problems.append(Problem(f"JSON files without {' and '.join(keys)}", str(file)))

    def has(self, keys: Iterable[str]) -> str:
        """Return the sentence that a JSON file holds an object with `keys`, if one of the first does."""
        found = next(self.objects(keys, [], FEW), None)
        return f"{self.name(found[0])} has {' and '.join(keys)}" if found else ""

    def split(self, *paths: Path) -> str:
        """Return the split that the names of folders and files below the export tell: "train", "val", "test", or ""."""
        for path in paths:
            for part in reversed(self.name(path).split("/")):
                if found := SPLIT.search(part):
                    return found[1].lower()
        return ""


@functools.lru_cache(maxsize=1)  # a file is looked into before it is read
def load_json(file: Path) -> object:
    """Return the contents of a JSON file.

    Raises:
        Problem: it is damaged.
    """
    try:
        return json.loads(file.read_bytes())  # in UTF-8, 16 or 32
    except (ValueError, RecursionError) as error:
        raise Problem("files that cannot be read", f"{file} is no JSON ({error}); export it again") from None
