"""Read one image or one mask from a file, and say clearly when it cannot be used."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from common.datasets.segmentation_set import VOID
from common.errors import UserError


def open_image(path: Path) -> Image.Image:
    """Return the decoded image at `path`, as it is stored.

    Raises:
        UserError: the file is missing, cut short, or no image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace(repr(str(path)), "the file").replace(repr(os.fspath(path)), "the file")
        raise UserError(f"{path} cannot be read ({reason}); replace the file") from None


def read_image(path: Path) -> Image.Image:
    """Return the image at `path` in RGB, upright; grey, palette, CMYK, 16-bit and transparent ones are converted.

    Raises:
        UserError: as `open_image`.
    """
    image = ImageOps.exif_transpose(open_image(path))
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip at 255 where we want the upper 8 bits
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def read_mask(
    path: Path, palette: tuple, void_color: tuple[int, int, int] | None = None, void: int | None = VOID
) -> np.ndarray:
    """Return the mask at `path` as class numbers, (H, W) uint8.

    A palette or grey file holds the numbers themselves, and `void`, unless the set has no such value. In an RGB file
    each pixel has its class's colour in `palette`, or `void_color`.

    Raises:
        UserError: as `open_image`; a colour or a value that is no class, named with the file.
    """
    image = open_image(path)
    if image.mode in ("RGB", "RGBA"):
        return _classes_of_colors(np.asarray(image.convert("RGB")), path, palette, void_color)
    mask = np.asarray(image)
    # Only 256 values fit in the bincount below; anything else is an odd file, looked at more slowly.
    present = np.unique(mask) if mask.dtype != np.uint8 else np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    wrong = [int(value) for value in present if not (0 <= value < len(palette) or value == void)]
    if mask.ndim != 2:
        raise UserError(f"{path} is a mask in {image.mode} colours; store class numbers, or RGB colours")
    if wrong:
        or_void = "" if void is None else f", or {void} for void"
        raise UserError(f"{path} holds the value {wrong[0]}; expected 0..{len(palette) - 1}{or_void}")
    return mask.astype(np.uint8)


def check_size(image: Image.Image, mask: np.ndarray, image_path: Path, mask_path: Path) -> None:
    """Raise UserError unless the image and its mask have the same height and width."""
    if image.size != mask.shape[::-1]:
        (width, height), (mask_height, mask_width) = image.size, mask.shape
        raise UserError(
            f"{mask_path} is {mask_width}x{mask_height} pixels but its image {image_path} is {width}x{height}; "
            "a mask must have the size of its image"
        )


def _classes_of_colors(colors: np.ndarray, path: Path, palette: tuple, void_color: tuple | None) -> np.ndarray:
    """Map an (H, W, 3) picture of colours to (H, W) class numbers."""
    codes = colors.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    known = {(r << 16) + (g << 8) + b: index for index, (r, g, b) in enumerate(palette)}
    if void_color:
        r, g, b = void_color
        known[(r << 16) + (g << 8) + b] = VOID
    found, inverse = np.unique(codes, return_inverse=True)
    for code in found.tolist():
        if code not in known:
            color = (code >> 16, code >> 8 & 255, code & 255)
            y, x = np.argwhere(codes == code)[0]
            raise UserError(f"{path} has the colour {color} at x={x}, y={y}, which is no class's colour")
    return np.array([known[code] for code in found.tolist()], dtype=np.uint8)[inverse].reshape(codes.shape)
