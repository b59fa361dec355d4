"""Read one image or one mask from a file; raise a clear error if it cannot be used."""

import contextlib
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from common.datasets.listing import ARRAYS, PHOTOS, not_read
from common.labels import LabelMap, rgb
from common.system.errors import UserError

NO_CLASS = "values or colours without a class"
NOT_A_MASK = "files that are not usable as masks"
MAX_PIXELS = 1 << 29  # of one image: 1.6 GB in RGB
Image.MAX_IMAGE_PIXELS = None  # turns off Pillow's own limit; `opened` checks MAX_PIXELS


class Problem(UserError):
    """A fault in the data. tools/check.py groups problems by `kind`; `lines` are proposals for classes.txt."""

    def __init__(self, kind: str, sentence: str, lines: Iterable[str] = ()):
        super().__init__(sentence)
        self.kind, self.lines = kind, lines


def missing(path: Path, dataset: str, folder: str) -> UserError:
    """Return the error for a missing `path`; the data of `dataset` belong into `folder` below the data root."""
    return UserError(
        f"{path} is missing; get the data with `python download.py {dataset}`, point --data-root at the folder that "
        f"holds {folder}, or try --dataset shapes, which needs no download"
    )


# Files with these suffixes count as images.
SUFFIXES = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def find_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images and the other files at any depth in `folder`, sorted; hidden files are skipped."""
    files = [file for file in folder.rglob("*") if not any(part[0] == "." for part in file.relative_to(folder).parts)]
    files = sorted(file for file in files if file.is_file())
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    return images, [file for file in files if file.suffix.lower() not in SUFFIXES]


def name_below(folder: Path, file: Path) -> str:
    """Return a file's path below `folder` without suffix."""
    # NFC: macOS writes an accented letter as two characters, other systems as one.
    return unicodedata.normalize("NFC", file.relative_to(folder).with_suffix("").as_posix())


def files_by_name(folder: Path, problems: list[UserError] | None = None) -> dict[str, Path]:
    """Return the images at any depth in `folder`, by `name_below`.

    Args:
        problems: list to which faults are added; without it, two files with one name raise UserError.

    Raises:
        UserError: there is no image.
    """
    found, (images, others) = {}, find_files(folder)
    for file in images:
        if (first := found.setdefault(name_below(folder, file), file)) != file:
            sentence = f"{first} and {file} have the same name but for the suffix; rename or remove one"
            if problems is None:
                raise UserError(sentence)
            problems.append(Problem("files of the same name", sentence))
    if not found:
        others = not_read(others)
        raise UserError(f"{folder} holds {others}" if others else f"{folder} is missing, or holds no image")
    others = [
        file for file in others if file.suffix.lower() in PHOTOS | ARRAYS and name_below(folder, file) not in found
    ]
    if others and problems is not None:
        problems.append(Problem("files that are not read", f"{folder} holds {not_read(others)}"))
    return found


def read_text(path: Path) -> str:
    """Return the text in the file at `path`.

    Raises:
        UserError: it is not in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it in that encoding") from None


# Pillow's other readers are less well tested, and for EPS it runs Ghostscript on the file's content.
IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


@contextlib.contextmanager
def opened(path: Path, file: BinaryIO | None = None) -> Iterator[Image.Image]:
    """Yield the image at `path`, or in `file`; only its header has been read.

    Raises:
        Problem: the file is missing, cut short, too large, or is no image in one of `IMAGE_FORMATS`.
    """
    try:
        with Image.open(file or path, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{path} has {image.width}x{image.height} pixels, more than the limit of {MAX_PIXELS:,}"
                raise Problem("images that are too large", f"{size}; cut it into tiles or make it smaller")
            yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise Problem("files that are missing", f"{path} is missing") from None
    except Exception as error:  # Pillow raises many types for damaged files
        reason = " ".join(str(error).replace(repr(str(path)), "").split()) or type(error).__name__
        remedy = "save it in RGB, 8 bits each" if path.suffix.lower() in (".tif", ".tiff") else "replace the file"
        raise Problem("files that cannot be read", f"{path} cannot be read ({reason}); {remedy}") from None


def open_image(path: Path) -> Image.Image:
    """Return the decoded image at `path`, turned as its EXIF orientation says; raise Problem as `opened` does."""
    with opened(path) as image:
        image.load()
        return ImageOps.exif_transpose(image)


def upright_size(path: Path, file: BinaryIO | None = None) -> tuple[int, int]:
    """Return width and height of the image at `path`, or in `file`, after EXIF orientation."""
    with opened(path, file) as image:
        return image.size[:: -1 if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5 else 1]


def several_pages(files: Iterable[Path]) -> str:
    """Return a sentence if some of `files` have several pages, else ""."""
    found = []
    for file in files:
        if file.suffix.lower() in (".gif", ".tif", ".tiff", ".webp"):
            with contextlib.suppress(UserError), opened(file) as image:
                if (pages := getattr(image, "n_frames", 1)) > 1:
                    found.append(f"{file} with {pages}")
    some = f"{len(found)} file{'s have' if len(found) > 1 else ' has'} several pages, and only the first is read"
    return f"{some}; first {found[0]}; save the pages that you need as files" if found else ""


def header(path: Path) -> tuple[str, int]:
    """Return Pillow's mode of the image at `path`, and its EXIF orientation: 1 is upright, 5 to 8 swap its sides.

    For a TIFF with more channels than Pillow reads, such as infrared, the mode names their number: "RGB of 4 channels".
    """
    with Image.open(path, formats=IMAGE_FORMATS) as stored:
        channels = getattr(stored, "tag_v2", {}).get(TiffImagePlugin.SAMPLESPERPIXEL, 0)
        more = f" of {channels} channels" * (channels > len(stored.getbands()))
        return stored.mode + more, stored.getexif().get(ExifTags.Base.Orientation, 1)


def read_image(path: Path) -> Image.Image:
    """Return the image at `path` in RGB, upright; grey, palette, CMYK, 16-bit and transparent images are converted.

    Raises:
        UserError: as in `open_image`; RGB cannot show this kind of colours or grey levels.
    """
    image = open_image(path)
    if image.mode in ("F", "I", "LAB"):
        raise UserError(f"{path} has Pillow's mode {image.mode}; save it in RGB, or in grey of 8 or 16 bits")
    if image.mode.startswith("I;16"):  # files do not tell whether the camera wrote 8, 12 or 16 bits
        levels = np.asarray(image)
        bits = next(bits for bits in (8, 12, 16) if levels.max() < 2**bits)
        image = Image.fromarray((levels >> bits - 8).astype(np.uint8))
    return image.convert("RGB")


def read_mask(path: Path, label_map: LabelMap) -> np.ndarray:
    """Return the mask at `path` as class numbers and VOID, (H, W) uint8, after EXIF orientation.

    Raises:
        Problem: as in `open_image` and `read_codes`; a colour or value is missing in `label_map`.
    """
    codes, are_colors = read_codes(open_image(path), path, label_map.palettes_are_colors)
    known = label_map.colors if are_colors else label_map.numbers
    wrong = [rgb(code) if are_colors else code for code in count_codes(codes) if code not in known]
    if not wrong:
        return label_map.classes_of(codes, are_colors)
    others = f" (and {', '.join(map(str, wrong[1:8]))}{', ...' * (len(wrong) > 8)})" if len(wrong) > 1 else ""
    what = f"{path} {'has the colour' if are_colors else 'holds the value'} {wrong[0]}{others}"
    expected = "no class has this colour" if are_colors else f"expected {ranges(known)}"
    raise Problem(NO_CLASS, f"{what}; {expected}{jpeg_hint(path)}")


def read_pair(image_path: Path, mask_path: Path, label_map: LabelMap) -> tuple[Image.Image, np.ndarray]:
    """Return the RGB image and the mask (H, W) of class numbers and VOID.

    Raises:
        UserError: as in `read_image` and `read_mask`; image and mask differ in size.
    """
    image, mask = read_image(image_path), read_mask(mask_path, label_map)
    if image.size != mask.shape[::-1]:
        (width, height), (mask_height, mask_width) = image.size, mask.shape
        sentence = (
            f"{mask_path} is {mask_width}x{mask_height} pixels but its image {image_path} is {width}x{height}; "
            "a mask must have the size of its image"
        )
        if header(image_path)[1] >= 5 and image.size == mask.shape:
            sentence += ", and the photograph is turned by its EXIF orientation: turn the mask, too"
        raise Problem("masks with a different size than their image", sentence)
    return image, mask


def read_codes(image: Image.Image, path: Path, palettes_are_colors: bool = False) -> tuple[np.ndarray, bool]:
    """Return the pixels (H, W) of a mask, as uint8 values or as colours 0xRRGGBB, and whether they are colours.

    Raises:
        Problem: the image is not usable as a mask.
    """
    if image.mode in ("RGBA", "LA"):
        *colors, alpha = ((low, high) for low, high in image.getextrema())
        if alpha[0] < alpha[1] and all(low == high for low, high in colors):
            sentence = f"{path} has one colour, and its objects are drawn by transparency; save that channel in grey"
            raise Problem(NOT_A_MASK, f"{sentence}, for example with Pillow: image.getchannel('A').save(...)")
    if image.mode in ("RGB", "RGBA") or (image.mode == "P" and palettes_are_colors):
        colors = np.asarray(image.convert("RGB"))
        return colors.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32), True
    values = np.asarray(image.getchannel(0) if image.mode == "LA" else image)
    if values.ndim != 2:
        raise Problem(NOT_A_MASK, f"{path} is a mask in {image.mode}; store class numbers, or RGB colours")
    with np.errstate(invalid="ignore"):
        numbers = values.astype(np.uint8)
    if (wrong := values[values != numbers]).size:
        sentence = f"{path} holds the number {wrong[0]:.6g}, and classes are whole numbers from 0 to 255; "
        if wrong[0] % 1:
            sentence += "fractions come from smoothing or are probabilities: store class numbers, such as mask > 0.5"
        else:
            sentence += "`python -m tools.import_labels --binary` makes them one class"
        raise Problem(NOT_A_MASK, sentence)
    return numbers, False


def jpeg_hint(path: Path | str) -> str:
    """Return an explanation for wrong values in a JPEG mask; "" for other files."""
    is_jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    return "; a JPEG's compression mixes neighbouring values: save masks as PNG" if is_jpeg else ""


def count_codes(codes: np.ndarray) -> dict[int, int]:
    """Count the pixels of each number in `codes`, in the order of the numbers."""
    codes = codes.ravel()
    ends = np.append(np.flatnonzero(codes[1:] != codes[:-1]), codes.size - 1)  # of runs: faster than sorting all pixels
    found, places = np.unique(codes[ends], return_inverse=True)
    return dict(zip(found.tolist(), np.bincount(places, np.diff(ends, prepend=-1)).astype(int).tolist(), strict=True))


def ranges(values: dict[int, int]) -> str:
    """Write numbers as ranges: "0..20, or 255"."""
    firsts = [value for value in sorted(values) if value - 1 not in values]
    lasts = [value for value in sorted(values) if value + 1 not in values]
    return ", or ".join(f"{a}..{b}" if a < b else str(a) for a, b in zip(firsts, lasts, strict=True))
