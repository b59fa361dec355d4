"""Generated scenes of overlapping shapes: a data set without download that shows whether a model works.

Every class has a pattern and a favourite colour. Neither is enough alone: a fifth of the objects have a random colour,
and the patterns are fine, rotated and noisy. Some classes are rarer and smaller than others. As in VOC, a line of void
surrounds each object. The same index always gives the same scene.
"""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from common.datasets.segmentation_set import DatasetSpec
from common.labels import VOID

CLASSES = ("background", "disk", "square", "triangle", "star", "cross")
PALETTE = ((0, 0, 0), (230, 75, 60), (245, 190, 40), (80, 180, 90), (60, 130, 220), (160, 90, 200))
FREQUENCIES = (0, 0.24, 0.22, 0.2, 0.18, 0.16)  # of the classes among the objects
HUES = (None, 0.0, 0.14, 0.36, 0.6, 0.78)  # favourite hue of each class
PERIODS = (None, 1.0, 0.07, 0.14, 0.08, 0.16)  # of the stripes, as a fraction of the scene's side; disks look plain
CHECKED = (4, 5)  # classes with checks instead of stripes
SIDE = 160  # of a scene, pixels
COUNTS = {"train": 3000, "val": 300, "test": 500}


def shapes(data_root: Path) -> DatasetSpec:
    """Return 3000 training, 300 validation and 500 test scenes. `data_root` is not used."""
    splits, first = {}, 0  # samples name this file, so a change of it renews the cache
    for split, count in COUNTS.items():
        splits[split] = [(f"{split}_{i:04}", first + i, Path(__file__)) for i in range(count)]
        first += count
    return DatasetSpec(CLASSES, PALETTE, splits, read_sample=lambda sample: draw_scene(sample[1]))


def draw_scene(index: int, side: int = SIDE) -> tuple[Image.Image, np.ndarray]:
    """Return scene number `index`: the RGB image and the mask (side, side) uint8 with classes and VOID."""
    rng = np.random.default_rng([2007, index])
    image = _texture(rng, _color(rng, rng.random(), saturation=(0.05, 0.5)), rng.uniform(0.1, 0.3), side)
    mask = Image.new("L", (side, side), 0)
    for _ in range(rng.integers(2, 6)):
        kind = int(rng.choice(len(CLASSES), p=FREQUENCIES))
        hue = HUES[kind] + rng.normal(0, 0.03) if rng.random() < 0.8 else rng.random()
        radius = side * rng.uniform(0.18, 0.4)
        center = rng.uniform(0, side, size=2)
        outline = [tuple(point) for point in center + radius * _outline(CLASSES[kind], rng.uniform(0, 2 * np.pi))]
        stencil = Image.new("L", (side, side), 0)
        ImageDraw.Draw(stencil).polygon(outline, fill=255)
        color, period = _color(rng, hue, saturation=(0.4, 1.0)), PERIODS[kind] * rng.uniform(0.8, 1.25)
        image.paste(_texture(rng, color, period, side, checked=kind in CHECKED), mask=stencil)
        draw = ImageDraw.Draw(mask)
        draw.polygon(outline, fill=kind)
        draw.line([*outline, *outline[:2]], fill=VOID, width=max(1, side // 64), joint="curve")
    return image, np.asarray(mask)


def _outline(kind: str, angle: float) -> np.ndarray:
    """Return the corners (n, 2) of a shape in the unit circle, rotated by `angle` radians."""
    count, inner = {"disk": (48, 1), "square": (4, 1), "triangle": (3, 1), "star": (10, 0.42), "cross": (12, 1)}[kind]
    turns = np.arange(count) / count
    radii = np.where(np.arange(count) % 2, inner, 1.0)
    if kind == "cross":  # four arms with three corners each: left tip, right tip, the inner corner after it
        spread = 0.055
        turns = np.concatenate([[arm / 4 - spread, arm / 4 + spread, arm / 4 + 0.125] for arm in range(4)])
        radii = np.tile([1.0, 1.0, np.sqrt(2) * np.sin(2 * np.pi * spread)], 4)
    turns = 2 * np.pi * turns + angle
    return radii[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _color(rng: np.random.Generator, hue: float, saturation: tuple[float, float]) -> np.ndarray:
    """Return an RGB colour (3,) from 0 to 255."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(*saturation), rng.uniform(0.35, 0.95)))


def _texture(
    rng: np.random.Generator, color: np.ndarray, period: float, side: int, checked: bool = False
) -> Image.Image:
    """Return an image (side, side) of `color` with blotches, grain, and stripes or checks of `period` * side pixels."""
    blotches = 22 * rng.standard_normal((6, 6), dtype=np.float32)
    light = np.asarray(Image.fromarray(blotches).resize((side, side), Image.Resampling.BICUBIC))
    y, x = (axis.astype(np.float32) * np.float32(2 * np.pi / (period * side)) for axis in np.ogrid[:side, :side])
    cos, sin = (np.float32(f(angle)) for angle in [rng.uniform(0, np.pi)] for f in (np.cos, np.sin))
    pattern = np.sin(cos * x + sin * y)
    if checked:
        pattern = np.sign(pattern * np.sin(cos * y - sin * x))
    grain = 12 * rng.standard_normal((side, side), dtype=np.float32)
    light = light + np.float32(rng.uniform(12, 32)) * pattern + grain
    channels = [(level + light).clip(0, 255).astype(np.uint8) for level in color.astype(np.float32)]
    return Image.merge("RGB", [Image.fromarray(channel) for channel in channels])
