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
from common.system.errors import more

FEW = 5  # JSON files that are looked into to recognise a format
SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])", re.IGNORECASE)
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
        images: another folder, which has the images.
    """

    def __init__(self, path: Path, images: Path | None = None):
        self.root = path if path.is_dir() else path.parent
        alone = images and path.is_file()  # the file's folder may be any
        self.roots = [folder for folder in (None if alone else self.root, images) if folder]
        self.pictures, self.others = ([], []) if alone else find_files(self.root)
        self.others = self.others if path.is_dir() else [path]
        self.images = Images(find_files(images)[0] if images else self.pictures)

    def name(self, file: Path) -> str:
        """Return the path of a file below the export."""
        return file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else str(file)

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
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Problem("files that cannot be read", f"{file} is no JSON ({error}); export it again") from None
