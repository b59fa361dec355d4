"""Use a trained model on images of any size."""

from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from common.models.encoders import STRIDE
from common.run import Run

BAND = 1 << 22  # enlarged logits are at most so many numbers at a time, 16 MiB
SCALES = (0.75, 1.0, 1.25)  # at which test-time augmentation looks at an image
OVERLAP = 1 / 4  # of a tile's side; half of it, at each edge, is looked at but not kept


@torch.no_grad()
def predict(model: nn.Module, image: Image.Image, image_size: tuple[int, int], run: Run) -> np.ndarray:
    """Return the classes of an RGB image's pixels, (H, W) uint8, at the image's own size.

    The network sees the image resized to `image_size` (height, width), as in training; its logits are enlarged to the
    image's size, bilinearly, before the best class is chosen.
    """
    pixels = resized(image, image_size)
    return classes_at(look(model.to(run.device).eval(), [pixels], run)[0], image.size[::-1])


def resized(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels (height, width, 3) uint8 of an RGB image, stretched to `size`, height and width, bilinearly."""
    return np.array(image.resize(size[::-1], Image.Resampling.BILINEAR))


@torch.no_grad()
def look(model: nn.Module, pixels: list[np.ndarray], run: Run, tta: bool = False) -> torch.Tensor:
    """Return the logits (B, C, H, W) float of images (H, W, 3) uint8 of one size, on the run's device.

    With test-time augmentation the result is the mean probability over the image and its mirror image, each at every
    one of SCALES.
    """
    batch = torch.from_numpy(np.stack(pixels)).to(run.device).permute(0, 3, 1, 2).float() / 255
    if not tta:
        return _logits(model, batch, run)
    height, width = batch.shape[-2:]
    views = []
    for scale in SCALES:
        size = max(1, round(scale * height)), max(1, round(scale * width))
        scaled = F.interpolate(batch, size, mode="bilinear", align_corners=False, antialias=True)
        both = _logits(model, scaled, run).softmax(1) + _logits(model, scaled.flip(3), run).softmax(1).flip(3)
        views.append(F.interpolate(both, (height, width), mode="bilinear", align_corners=False))
    return sum(views) / (2 * len(views))


def _logits(model: nn.Module, batch: torch.Tensor, run: Run) -> torch.Tensor:
    with run.autocast():
        return model(batch).float()


def classes_at(logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Enlarge logits (C, h, w) to `size`, height and width, bilinearly; return the best classes (H, W) uint8.

    The image is made in bands of rows: enlarged logits of a large photograph would not fit into memory.
    """
    (count, rows, _), (height, width) = logits.shape, size
    classes = np.empty(size, dtype=np.uint8)
    band = max(1, BAND // (count * width))
    # Where between the rows of the logits each row of the image lies, with both from edge to edge.
    places = ((torch.arange(height, device=logits.device) + 0.5) * (rows / height) - 0.5).clamp(0, rows - 1)
    for start in range(0, height, band):
        place = places[start : start + band]
        above = place.long()
        part = torch.lerp(logits[:, above], logits[:, (above + 1).clamp(max=rows - 1)], (place - above)[:, None])
        # Channels-last, the best class is found in a fraction of the time.
        part = part[None].contiguous(memory_format=torch.channels_last)
        part = F.interpolate(part, (len(place), width), mode="bilinear", align_corners=False)
        classes[start : start + band] = part.max(1).indices[0].to("cpu", torch.uint8).numpy()
    return classes


def classes_by_tiles(model: nn.Module, pixels: np.ndarray, run: Run, most: int, tta: bool = False) -> np.ndarray:
    """Return the classes (H, W) uint8 of an image (H, W, 3) uint8, looked at in overlapping tiles.

    Each pixel is taken from a tile in which it is not near an edge, but for the image's own edges.

    Args:
        most: pixels that a tile has at most, STRIDE**2 or more.
    """
    height, width = pixels.shape[:2]
    classes = np.empty((height, width), dtype=np.uint8)
    side = min(height, int(most**0.5) // STRIDE * STRIDE)  # networks pad what is no multiple of their stride
    for top, bottom, first_row, last_row in spans(height, side):
        for left, right, first, last in spans(width, min(width, most // side // STRIDE * STRIDE)):
            tile = look(model, [pixels[top:bottom, left:right]], run, tta)[0].argmax(0).to("cpu", torch.uint8).numpy()
            classes[first_row:last_row, first:last] = tile[first_row - top : last_row - top, first - left : last - left]
    return classes


def spans(length: int, tile: int) -> list[tuple[int, int, int, int]]:
    """Cover `length` with tiles; return start and end of each, and start and end of what is kept of it."""
    count = 1 + -(-(length - tile) // max(1, round((1 - OVERLAP) * tile)))
    starts = [round(i * (length - tile) / max(1, count - 1)) for i in range(count)]
    borders = [0, *((a + tile + b) // 2 for a, b in pairwise(starts)), length]
    return [(start, start + tile, *kept) for start, *kept in zip(starts, borders, borders[1:], strict=False)]
