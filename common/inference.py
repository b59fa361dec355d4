"""Prediction for an image of any size: resizing, test-time augmentation (TTA), sliding window."""

import math
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from common.models.encoders import STRIDE
from common.run import Run

SCALES = (0.75, 1.0, 1.25)  # of TTA
OVERLAP = 1 / 4  # of neighbouring windows, as a fraction of their side; each window keeps its half
BAND = 1 << 22  # largest number of upsampled logits at a time, 16 MiB


@torch.no_grad()
def predict(
    model: nn.Module,
    image: Image.Image,
    image_size: tuple[int, int],
    run: Run,
    tta: bool = False,
    max_pixels: float = math.inf,
) -> np.ndarray:
    """Return the class of each pixel of an RGB image, (H, W) uint8, at the image's own size.

    The network sees the image resized to `image_size`, as in training. Its logits are upsampled bilinearly to the
    image's own size before the best class is chosen.

    Args:
        image_size: height and width.
        tta: average over flips and scales.
        max_pixels: largest number of pixels that the network sees at a time: STRIDE**2 or more, with `tta`
            (STRIDE * max(SCALES))**2 or more. If `image_size` has more pixels, overlapping windows are predicted. Near
            an inner edge of a window, the neighbouring window gives the result.
    """
    model.to(run.device).eval()
    model = FlipsAndScales(model) if tta else model
    max_pixels /= max(SCALES) ** 2 if tta else 1
    height, width = seen = image_size
    if height * width > max_pixels:
        rows = min(height, int(max_pixels**0.5) // STRIDE * STRIDE)  # networks pad to a multiple of STRIDE
        seen = rows, min(width, int(max_pixels / rows) // STRIDE * STRIDE)
    # Windows are cut from the original image, so each window's logits can be upsampled alone.
    window_height, window_width = -(-seen[0] * image.height // height), -(-seen[1] * image.width // width)
    classes = np.empty((image.height, image.width), dtype=np.uint8)
    for top, bottom, first_row, last_row in window_spans(image.height, window_height):
        for left, right, first, last in window_spans(image.width, window_width):
            pixels = resize(image, seen, (left, top, right, bottom))
            window = upsample_argmax(predict_logits(model, pixels, run), (bottom - top, right - left))
            kept = window[first_row - top : last_row - top, first - left : last - left]
            classes[first_row:last_row, first:last] = kept
    return classes


def resize(image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> torch.Tensor:
    """Return an RGB image, or a `box` of it, resized to `size` (height, width), as (1, 3, height, width) uint8."""
    pixels = np.array(image.resize(size[::-1], Image.Resampling.BILINEAR, box))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@torch.no_grad()
def predict_logits(model: nn.Module, images: torch.Tensor, run: Run) -> torch.Tensor:
    """Map images (B, 3, H, W), uint8 or float in [0, 1], to logits (B, C, H, W) float on the run's device."""
    images = images.to(run.device)
    with run.autocast():
        return model(images / 255 if images.dtype == torch.uint8 else images).float()


class FlipsAndScales(nn.Module):
    """Test-time augmentation: average a model over the image and its mirror image at all SCALES.

    Args:
        model: maps images (B, 3, H, W) in [0, 1] to logits (B, C, H, W).
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1] to the logarithms (B, C, H, W) float of the mean probabilities."""
        height, width = images.shape[-2:]
        total = 0
        for scale in SCALES:
            size = max(1, round(scale * height)), max(1, round(scale * width))
            scaled = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
            straight = self.model(scaled).float().softmax(1)
            flipped = self.model(scaled.flip(3)).float().softmax(1).flip(3)
            total += F.interpolate(straight + flipped, (height, width), mode="bilinear", align_corners=False)
        return (total / (2 * len(SCALES))).clamp(min=1e-12).log()


def upsample_argmax(logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Upsample logits (1, C, h, w) bilinearly to `size` (height, width); return the best class per pixel, uint8.

    First upsample the height, then the width in bands of rows. All upsampled logits of a large photograph would not fit
    into memory.
    """
    height, width = size
    rows = F.interpolate(logits, (height, logits.shape[3]), mode="bilinear", align_corners=False)
    classes = []
    for band in rows.split(max(1, BAND // (logits.shape[1] * width)), dim=2):
        # In channels-last, finding the best class takes a fraction of the time.
        band = band.contiguous(memory_format=torch.channels_last)
        band = F.interpolate(band, (band.shape[2], width), mode="bilinear", align_corners=False)
        classes.append(band.max(1).indices[0].to("cpu", torch.uint8))
    return torch.cat(classes).numpy()


def window_spans(length: int, size: int) -> list[tuple[int, int, int, int]]:
    """Cover `length` with windows of `size`; return (start, end, first kept, end of the kept part) of each."""
    count = 1 + -(-(length - size) // max(1, round((1 - OVERLAP) * size)))
    starts = [round(i * (length - size) / max(1, count - 1)) for i in range(count)]
    borders = [0, *((a + size + b) // 2 for a, b in pairwise(starts)), length]
    return [(start, start + size, *kept) for start, *kept in zip(starts, borders, borders[1:], strict=False)]
