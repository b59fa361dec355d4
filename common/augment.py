"""Augmentation of whole batches, on the device: image and mask together, drawn anew for every sample.

Each function takes images (B, 3, H, W) float in [0, 1], masks (B, H, W) int64 and a generator on their device, and
returns the two changed alike. Its settings have defaults; functools.partial sets others. Nothing here waits for the
device.
"""

import math

import torch
from torch.nn import functional as F

from common.datasets.segmentation_set import VOID

GREY = 0.45  # ImageNet's mean, of all channels; what an image shows where nothing is known

Pair = tuple[torch.Tensor, torch.Tensor]


def random_hflip(images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator) -> Pair:
    """Mirror every other sample, on average, left to right."""
    flip = torch.rand(len(images), device=images.device, generator=generator) < 0.5
    if flip.device.type == "cpu":  # takes half the time, but would have to wait for a GPU
        images, masks = images.clone(), masks.clone()
        for i in flip.nonzero().flatten().tolist():
            images[i], masks[i] = images[i].flip(2), masks[i].flip(1)
        return images, masks
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    return images, torch.where(flip[:, None, None], masks.flip(2), masks)


def random_rotate(images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator, degrees: float = 15.0) -> Pair:
    """Turn each sample about its centre by an angle from -degrees to degrees."""
    height, width = masks.shape[-2:]
    angle = math.radians(degrees) * uniform(-1, 1, (len(images),), generator)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Coordinates run from -1 to 1 along either side, whichever is longer.
    theta = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], dim=1)
    return _resample(images, masks, theta, (height, width))


def random_crop(images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator, smallest: float = 0.6) -> Pair:
    """Enlarge a window of each sample to full size; its sides are `smallest` to 1 times the image's."""
    side = uniform(smallest, 1, (len(images),), generator)
    x, y = (1 - side) * uniform(-1, 1, (2, len(images)), generator)
    zero = torch.zeros_like(side)
    return _resample(images, masks, torch.stack([side, zero, x, zero, side, y], dim=1), masks.shape[-2:])


def random_resized_crop(
    images: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    size: int | tuple[int, int] = 224,
    scale: tuple[float, float] = (0.25, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Pair:
    """Resize a window of each sample, of random area and shape, to `size`.

    Windows are drawn as torchvision's RandomResizedCrop draws them, but not rounded to whole pixels. Images are not
    smoothed where they shrink, so they should not be much larger than `size`.

    Args:
        size: height and width of the result, or one number for both.
        scale: smallest and largest area of the window, as a part of the image's.
        ratio: smallest and largest width / height of the window; its logarithm is drawn uniformly.
    """
    height, width = masks.shape[-2:]
    shape = (10, len(images))  # ten windows for each sample, of which the first that fits is taken
    area = uniform(*scale, shape, generator)
    aspect = uniform(math.log(ratio[0]), math.log(ratio[1]), shape, generator).exp()
    # Both as a part of the image's.
    tall, wide = (area * width / height / aspect).sqrt(), (area * height / width * aspect).sqrt()
    first = ((tall <= 1) & (wide <= 1)).int().argmax(0, keepdim=True)
    tall, wide = tall.gather(0, first)[0], wide.gather(0, first)[0]
    excess = torch.maximum(tall, wide).clamp(min=1)  # where none fits, the first is made to
    tall, wide = tall / excess, wide / excess
    x, y = uniform(-1, 1, (2, len(images)), generator)
    zero = torch.zeros_like(x)
    theta = torch.stack([wide, zero, (1 - wide) * x, zero, tall, (1 - tall) * y], dim=1)
    return _resample(images, masks, theta, (size, size) if isinstance(size, int) else size)


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Draw float numbers from `low` to `high` on the generator's device."""
    return low + (high - low) * torch.rand(shape, device=generator.device, generator=generator)


def _resample(images: torch.Tensor, masks: torch.Tensor, theta: torch.Tensor, size: tuple[int, int]) -> Pair:
    """Sample images (bilinear) and masks (nearest) at the same places; grey and void where these lie outside.

    Args:
        theta: (B, 6), the rows of a 2x3 matrix per sample: where in the old image, with x and y from -1 at its left and
            upper edge to 1 at the others, a pixel of the new one comes from, in the same units.
        size: height and width of the result.
    """
    grid = F.affine_grid(theta.view(-1, 2, 3), (len(images), 1, *size), align_corners=False)
    # grid_sample reads 0 outside, so 0 is made to mean grey, and void.
    images = F.grid_sample(images - GREY, grid, mode="bilinear", align_corners=False).add_(GREY)
    masks = F.grid_sample((masks - VOID).float()[:, None], grid, mode="nearest", align_corners=False)
    return images.contiguous(memory_format=torch.channels_last), masks[:, 0].long() + VOID
