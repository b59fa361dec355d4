"""Augmentation of whole batches, on the device: image and mask together, drawn anew for every sample.

Each function takes images (B, 3, H, W) float in [0, 1], masks (B, H, W) int64 and a generator on their device, and
returns the two changed alike. Its settings have defaults; functools.partial sets others. Nothing here waits for the
device but `per_sample`, by which a transform of torchvision.transforms.v2 can stand in the same list.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from common.labels import VOID

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


def random_rotated_crop(
    images: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    size: int | tuple[int, int],
    degrees: float = 15.0,
    smallest: float = 0.6,
) -> Pair:
    """Turn each sample about its centre, and resize a window of it to `size`, in one sampling.

    One sampling keeps what two would blur. The images should be larger than `size`, by 1 / `smallest` at most: a window
    that is larger than the result is not smoothed.

    Args:
        size: height and width of the result, or one number for both.
        degrees: largest angle, to either side.
        smallest: the window's sides are `smallest` to 1 times the image's.
    """
    height, width = masks.shape[-2:]
    angle = math.radians(degrees) * uniform(-1, 1, (len(images),), generator)
    side = uniform(smallest, 1, (len(images),), generator)
    center = (1 - side) * uniform(-1, 1, (2, len(images)), generator)
    # Coordinates run from -1 to 1 along either side, whichever is longer.
    cos, up, down = angle.cos(), -angle.sin() * height / width, angle.sin() * width / height
    rows = ((cos, up), (down, cos))
    theta = [(side * a, side * b, a * center[0] + b * center[1]) for a, b in rows]
    return _resample(images, masks, torch.stack([*theta[0], *theta[1]], dim=1), size)


def random_resized_crop(
    images: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.25, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Pair:
    """Resize a window of each sample, of random area and shape, to `size`.

    Windows are drawn as torchvision's RandomResizedCrop draws them, but not rounded to whole pixels, and with `ratio`
    relative to the image: 1 is the image's own shape, which the network sees in validation. Images are not smoothed
    where they shrink, so they should not be much larger than `size`.

    Args:
        size: height and width of the result, or one number for both.
        scale: smallest and largest area of the window, as a part of the image's.
        ratio: smallest and largest width / height of the window, both as a part of the image's; its logarithm is drawn
            uniformly.
    """
    shape = (10, len(images))  # ten windows for each sample, of which the first that fits is taken
    area = uniform(*scale, shape, generator)
    aspect = uniform(math.log(ratio[0]), math.log(ratio[1]), shape, generator).exp()
    tall, wide = (area / aspect).sqrt(), (area * aspect).sqrt()
    x, y = uniform(-1, 1, (2, len(images)), generator)
    fits = (tall <= 1) & (wide <= 1)
    first = fits.int().argmax(0, keepdim=True)
    # Where none fits, the largest one in the middle.
    none, nearest = ~fits.any(0), min(max(1.0, ratio[0]), ratio[1])
    tall = torch.where(none, min(1.0, 1 / nearest), tall.gather(0, first)[0])
    wide = torch.where(none, min(1.0, nearest), wide.gather(0, first)[0])
    x, y = x * ~none, y * ~none
    zero = torch.zeros_like(x)
    theta = torch.stack([wide, zero, (1 - wide) * x, zero, tall, (1 - tall) * y], dim=1)
    return _resample(images, masks, theta, size)


def random_scale_crop(
    images: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.5, 2.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Pair:
    """Enlarge or shrink each sample, and cut a window of `size` from it at a random place, in one sampling.

    What a window shows beside a sample that is smaller is grey and void. Images are not smoothed where they shrink, so
    they should not be much larger than `size`.

    Args:
        size: height and width of the result, or one number for both.
        scale: smallest and largest factor; its logarithm is drawn uniformly. At ratio 1, factor 1 shows the whole image
            and factor 2 a quarter of its area.
        ratio: smallest and largest width / height of the window, relative to the image's; its logarithm is drawn
            uniformly.
    """
    side = 1 / uniform(math.log(scale[0]), math.log(scale[1]), (len(images),), generator).exp()
    stretch = uniform(math.log(ratio[0]) / 2, math.log(ratio[1]) / 2, (len(images),), generator).exp()
    wide, tall = side * stretch, side / stretch
    x, y = uniform(-1, 1, (2, len(images)), generator)
    zero = torch.zeros_like(x)
    theta = torch.stack([wide, zero, (1 - wide) * x, zero, tall, (1 - tall) * y], dim=1)
    return _resample(images, masks, theta, size)


def random_color(
    images: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    brightness: float = 0.3,
    contrast: float = 0.3,
    saturation: float = 0.3,
) -> Pair:
    """Change brightness, contrast and saturation of each sample, as torchvision's ColorJitter does, in this order.

    Args:
        brightness, contrast, saturation: each is multiplied by a factor between 1 minus and 1 plus this.
    """

    def factor(most: float) -> torch.Tensor:
        return uniform(1 - most, 1 + most, (len(images), 1, 1, 1), generator)

    def grey(images: torch.Tensor) -> torch.Tensor:
        red, green, blue = images.split(1, dim=1)
        return 0.299 * red + 0.587 * green + 0.114 * blue  # a tensor of weights would have to be copied to a GPU

    images = (images * factor(brightness)).clamp_(0, 1)
    images = torch.lerp(grey(images).mean((2, 3), keepdim=True), images, factor(contrast)).clamp_(0, 1)
    return torch.lerp(grey(images), images, factor(saturation)).clamp_(0, 1), masks


def per_sample(transform: nn.Module) -> Callable:
    """Return a function of this file's kind that gives each sample to a transform of torchvision.transforms.v2.

    Image and mask go through it as tv_tensors, so they are moved alike and colours are the image's alone. What lies
    outside the image is class 0 unless the transform's `fill` says VOID for masks: `fill={Image: 0.45, Mask: 255}`. All
    samples must come out in one size. That is slower than the functions here, which take whole batches.
    """
    from torchvision import tv_tensors  # takes as long as importing torch itself

    def augment(images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator) -> Pair:
        seeds = torch.randint(2**31, (len(images),), generator=generator, device=generator.device).tolist()
        samples = []
        with torch.random.fork_rng(devices=[]):  # transforms draw from torch's own generator
            for image, mask, seed in zip(images, masks, seeds, strict=True):
                torch.manual_seed(seed)
                samples.append(transform(tv_tensors.Image(image), tv_tensors.Mask(mask)))
        images, masks = (torch.stack(parts).as_subclass(torch.Tensor) for parts in zip(*samples, strict=True))
        return images.contiguous(memory_format=torch.channels_last), masks

    augment.__name__ = type(transform).__name__
    return augment


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Draw float numbers from `low` to `high` on the generator's device."""
    return low + (high - low) * torch.rand(shape, device=generator.device, generator=generator)


def _resample(images: torch.Tensor, masks: torch.Tensor, theta: torch.Tensor, size: int | tuple[int, int]) -> Pair:
    """Sample images (bilinear) and masks (nearest) at the same places; grey and void where these lie outside.

    Args:
        theta: (B, 6), the rows of a 2x3 matrix per sample: where in the old image, with x and y from -1 at its left and
            upper edge to 1 at the others, a pixel of the new one comes from, in the same units.
        size: height and width of the result, or one number for both.
    """
    height, width = masks.shape[-2:]
    size = (size, size) if isinstance(size, int) else size
    grid = F.affine_grid(theta.view(-1, 2, 3), (len(images), 1, *size), align_corners=False)
    # grid_sample reads 0 outside, so 0 is made to mean grey.
    images = F.grid_sample(images - GREY, grid, mode="bilinear", align_corners=False).add_(GREY)
    masks = F.grid_sample(masks.float()[:, None], grid, mode="nearest", align_corners=False)[:, 0].long()
    # Beyond the centres of the outermost pixels, grey is mixed in. (The last digits of a float may differ.)
    unknown = (grid[..., 0].abs() > 1 - 1 / width + 1e-5) | (grid[..., 1].abs() > 1 - 1 / height + 1e-5)
    return images.contiguous(memory_format=torch.channels_last), masks.masked_fill_(unknown, VOID)
