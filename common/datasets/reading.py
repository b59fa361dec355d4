"""Read one image or one mask from a file, and say clearly when it cannot be used."""

import contextlib
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from common.labels import LabelMap, rgb
from common.system.errors import UserError


class WrongValues(UserError):
    """A mask holds what is no class; `pixels` says how many it has of each such value or colour."""

    def __init__(self, sentence: str, pixels: dict[int | tuple, int]):
        super().__init__(sentence)
        self.pixels = pixels


class Unusable(UserError):
    """All that is wrong with an image and its mask; the message is the first of the `problems`."""

    def __init__(self, problems: list[UserError]):
        super().__init__(str(problems[0]))
        self.problems = problems


@contextlib.contextmanager
def noted(problems: list[UserError]) -> Iterator[None]:
    """Add a UserError to `problems` and go on."""
    try:
        yield
    except UserError as error:
        problems.append(error)


# Of files that are taken for images when a folder is searched; what they hold is seen when they are read.
SUFFIXES = {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif"}
SUFFIXES |= {".tiff", ".webp"}


def find_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images and the other files in `folder` and the folders in it, by name; hidden ones are passed over."""
    files = [file for file in folder.rglob("*") if not any(part[0] == "." for part in file.relative_to(folder).parts)]
    files = sorted(file for file in files if file.is_file())
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    return images, [file for file in files if file.suffix.lower() not in SUFFIXES]


def name_below(folder: Path, file: Path) -> str:
    """Return a file's path below `folder` without suffix, its accents written as one letter each; Macs take two."""
    return unicodedata.normalize("NFC", file.relative_to(folder).with_suffix("").as_posix())


def read_text(path: Path) -> str:
    """Return the text in the file at `path`.

    Raises:
        UserError: it is not in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text in UTF-8; save it in that encoding") from None


# Pillow knows forty more, whose readers are less well tested; for EPS it runs Ghostscript on what is in the file.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what Pillow says of the file at `path` into a sentence."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except Exception as error:  # which one depends on where the damage is
        text = str(error).replace(f"image file {str(path)!r}", "an image in it").replace(repr(str(path)), "the file")
        reason = " ".join(text.split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); replace the file") from None


def open_image(path: Path) -> Image.Image:
    """Return the decoded image at `path`, as it is stored.

    Raises:
        UserError: the file is missing, cut short, claims to be huge, or is no image in one of `FORMATS`.
    """
    with reading(path), Image.open(path, formats=FORMATS) as image:
        image.load()
        return image


def open_upright(path: Path) -> Image.Image:
    """Return the decoded image at `path`, turned as its EXIF orientation says; errors as of `open_image`."""
    with reading(path):
        return ImageOps.exif_transpose(open_image(path))


def orientation(path: Path) -> int:
    """Return the EXIF orientation of the image at `path`: 1 is upright, 2 to 4 keep its sides, 5 to 8 swap them."""
    with reading(path), Image.open(path, formats=FORMATS) as stored:
        value = stored.getexif().get(ExifTags.Base.Orientation)
    return value if value in range(2, 9) else 1


def read_image(path: Path) -> Image.Image:
    """Return the image at `path` in RGB, upright; grey, palette, CMYK, 16-bit and transparent ones are converted.

    Of grey levels of more than 8 bits the upper 8 are taken. Files do not say how many bits a camera has used: 8, 12
    or 16, whatever the largest level needs.

    Raises:
        UserError: as `open_image`; grey levels in floats, below 0 or above 65535, whose white nobody knows.
    """
    image = open_upright(path)
    if image.mode == "F":
        raise UserError(f"{path} has grey levels in floats; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise UserError(f"{path} has grey levels from {levels.min()} to {levels.max()}; save it with 8 or 16 bits")
        bits = next(bits for bits in (8, 12, 16) if levels.max() < 2**bits)
        image = Image.fromarray((levels >> bits - 8).astype(np.uint8))
    with reading(path):
        return image.convert("RGB")


def read_mask(path: Path, label_map: LabelMap) -> np.ndarray:
    """Return the mask at `path` as class numbers and VOID, (H, W) uint8, turned like a photograph.

    Raises:
        UserError: as `open_image`; a colour or a value that `label_map` does not know, named with the file.
    """
    return _decode(*read_codes(open_upright(path), path, label_map.palettes_are_colors), path, label_map)


def read_pair(image_path: Path, mask_path: Path, label_map: LabelMap) -> tuple[Image.Image, np.ndarray]:
    """Return what `read_image` and `read_mask` do.

    Raises:
        Unusable: as these two and `check_size`; it knows of all problems.
    """
    image = codes = mask = None
    problems = []
    with noted(problems):
        image = read_image(image_path)
    with noted(problems):
        codes, are_colors = read_codes(open_upright(mask_path), mask_path, label_map.palettes_are_colors)
        mask = _decode(codes, are_colors, mask_path, label_map)
    if image is not None and codes is not None:
        with noted(problems):
            check_size(image, codes, image_path, mask_path)
    if problems:
        raise Unusable(problems)
    return image, mask


def _decode(codes: np.ndarray, are_colors: bool, path: Path, label_map: LabelMap) -> np.ndarray:
    """Return the classes (H, W) uint8 of what `read_codes` returns."""
    known = label_map.colors if are_colors else label_map.numbers
    if wrong := [code for code in distinct(codes) if code not in known]:
        pixels = dict(zip(*np.unique(codes[np.isin(codes, wrong)], return_counts=True), strict=True))
        pixels = {rgb(int(code)) if are_colors else int(code): int(count) for code, count in pixels.items()}
        others = ", ".join(map(str, list(pixels)[1:8])) + ", ..." * (len(pixels) > 8)
        others = f" (and {others})" if others else ""
        if are_colors:
            y, x = np.argwhere(codes == wrong[0])[0]
            place = f"{rgb(wrong[0])} at x={x}, y={y}{others}"
            raise WrongValues(f"{path} has the colour {place}, which is no class's colour{jpeg_hint(path)}", pixels)
        sentence = f"{path} holds the value {wrong[0]}{others}; expected {ranges(known)}{jpeg_hint(path)}"
        raise WrongValues(sentence, pixels)
    return label_map.classes_of(codes, are_colors)


def read_codes(image: Image.Image, path: Path, palettes_are_colors: bool = False) -> tuple[np.ndarray, bool]:
    """Return the pixels of a mask as numbers (H, W), and whether these are colours, 0xRRGGBB.

    Raises:
        UserError: an image of a kind that is no mask.
    """
    if image.mode in ("RGB", "RGBA", "PA") or (image.mode == "P" and palettes_are_colors):
        colors = np.asarray(image.convert("RGB"))
        return colors.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32), True
    values = np.asarray(image.getchannel(0) if image.mode == "LA" else image)
    if values.ndim != 2 or (values.dtype.kind == "f" and not are_whole(values)):
        raise UserError(f"{path} is a mask in {image.mode} colours; store class numbers, or RGB colours")
    return values if values.dtype == np.uint8 else values.astype(np.uint8 if values.dtype == bool else np.int64), False


def jpeg_hint(path: Path | str) -> str:
    """Say why a mask holds what it should not, if it is a JPEG."""
    is_jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    return "; a JPEG's compression mixes neighbouring values: save masks as PNG" if is_jpeg else ""


def are_whole(values: np.ndarray) -> bool:
    """Return whether floats are whole numbers that an integer can hold; NaN and infinity are none."""
    return bool(np.isfinite(values).all() and (np.abs(values) < 2**31).all() and (values == values.round()).all())


def distinct(codes: np.ndarray) -> list[int]:
    """Return the numbers that occur in `codes`, in order."""
    if codes.dtype == np.uint8:
        return np.flatnonzero(np.bincount(codes.ravel(), minlength=256)).tolist()
    codes = codes.ravel()
    begins = np.flatnonzero(codes[1:] != codes[:-1]) + 1  # of runs: sorting these alone takes a tenth of the time
    return np.unique(codes[np.concatenate([[0], begins])]).tolist()


def check_size(image: Image.Image, mask: np.ndarray, image_path: Path, mask_path: Path) -> None:
    """Raise UserError unless the image and its mask have the same height and width."""
    if image.size != mask.shape[::-1]:
        (width, height), (mask_height, mask_width) = image.size, mask.shape
        raise UserError(
            f"{mask_path} is {mask_width}x{mask_height} pixels but its image {image_path} is {width}x{height}; "
            f"a mask must have the size of its image{_turned(image, mask, image_path)}"
        )


def _turned(image: Image.Image, mask: np.ndarray, image_path: Path) -> str:
    """Say that the photograph's EXIF orientation makes the difference, if it does: it swaps width and height."""
    if orientation(image_path) >= 5 and image.size == mask.shape:
        return ", and the photograph is turned by its EXIF orientation: turn the mask, too"
    return ""


def ranges(values: Iterable[int]) -> str:
    """Say which numbers these are: "0..20, or 255"."""
    runs = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    texts = [str(first) if first == last else f"{first}..{last}" for first, last in runs]
    return ", or ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
