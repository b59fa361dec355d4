"""Draw a prediction over its image, with a legend."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.labels import colorize

SMALLEST, LARGEST = 480, 1600  # pixels of the longer side; small images are enlarged to keep the legend readable
FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
LEAST = 0.0005  # classes with a smaller share of the image are not in the legend


def overlay(
    image: Image.Image, classes: np.ndarray, names: Sequence[str], palette: Sequence[tuple[int, int, int]]
) -> Image.Image:
    """Return the image with tinted classes and white outlines, and below a legend of class names and shares.

    A black class, usually the background, is not tinted.

    Args:
        image: RGB, any size.
        classes: class numbers (H, W) uint8, same size as the image.
        names, palette: names and colours of the classes.
    """
    scale = np.clip(max(image.size), SMALLEST, LARGEST) / max(image.size)
    size = tuple(max(1, round(scale * side)) for side in image.size)
    labels = np.asarray(Image.fromarray(classes).resize(size, Image.Resampling.NEAREST))
    photo = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    colors = colorize(labels, palette)
    tinted = photo + 0.5 * (colors - photo) * colors.any(2, keepdims=True)
    edges, width = np.zeros(labels.shape, dtype=bool), max(1, round(max(size) / 600))
    edges[:, :-width] |= labels[:, :-width] != labels[:, width:]
    edges[:-width] |= labels[:-width] != labels[width:]
    tinted[edges] = 255
    picture = Image.fromarray(tinted.astype(np.uint8))

    shares = np.array(Image.fromarray(classes).histogram()[: len(names)]) / classes.size
    shown = [index for index in np.argsort(-shares, kind="stable").tolist() if shares[index] >= LEAST]
    entries = [(f"{names[index]}  {shares[index]:.1%}", tuple(palette[index])) for index in shown]
    strip = _legend(entries, max(size[0], SMALLEST // 2), height=max(13, round(max(size) / 55)))
    both = Image.new("RGB", (strip.width, picture.height + strip.height), "white")
    both.paste(picture, ((strip.width - picture.width) // 2, 0))
    both.paste(strip, (0, picture.height))
    return both


def _legend(entries: list[tuple[str, tuple[int, int, int]]], width: int, height: int) -> Image.Image:
    """Return a white strip with a coloured patch and a text for each entry, wrapped to `width`.

    `height` is the letter height in pixels. The patch of black is crossed out because black is not tinted.
    """
    font, gap = ImageFont.truetype(str(FONT), height), height // 2
    places, x, y = [], gap, gap
    for text, _ in entries:
        length = height + gap + round(font.getlength(text)) + 2 * gap
        if x > gap and x + length > width:
            x, y = gap, y + height + gap
        places.append((x, y))
        x += length
    strip = Image.new("RGB", (width, y + height + gap), "white")
    draw = ImageDraw.Draw(strip)
    for (text, color), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y, x + height, y + height), fill=color if any(color) else "white", outline="#888888")
        if not any(color):
            draw.line((x, y + height, x + height, y), fill="#888888", width=max(1, height // 12))
        draw.text((x + height + gap, y + height // 2), text, fill="black", font=font, anchor="lm")
    return strip
