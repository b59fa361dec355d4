"""Augmentation of whole batches on the device, with new random parameters for every sample.

Each function takes images (B, 3, H, W) float in [0, 1], masks (B, H, W) int64 and a generator on their device. It
returns new images and masks, both transformed in the same way. Pixels outside the old image become grey in the image
and void (ignore_index 255) in the mask. To change a function's settings, wrap it in functools.partial. `per_sample`
adapts transforms of torchvision.transforms.v2; with it, the CPU waits for the GPU in every batch.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from common.labels import VOID

GREY = 0.45  # ImageNet's mean over all channels; fills the pixels outside the old image

Pair = tuple[torch.Tensor, torch.Tensor]


def random_hflip(images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator) -> Pair:
    """Mirror each sample left to right with probability 0.5."""
    flip = torch.rand(len(images), device=images.device, generator=generator) < 0.5
    if flip.device.type == "cpu":  # twice as fast, but on a GPU it would wait for the result of `flip`
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
    """Rotate each sample about its centre, crop a random window and resize it to `size`.

    All three steps are one interpolation, because two would blur more. The sides of the images should be between 1 and
    1 / `smallest` times `size`: smaller images get blurred, larger ones aliased.

    Args:
        size: height and width of the result, or one number for both.
        degrees: largest angle in either direction.
        smallest: the sides of the window are `smallest` to 1 times those of the image.
    """
    height, width = masks.shape[-2:]
    angle = math.radians(degrees) * uniform(-1, 1, (len(images),), generator)
    side = uniform(smallest, 1, (len(images),), generator)
    center = (1 - side) * uniform(-1, 1, (2, len(images)), generator)
    # theta = [side * R | R @ center], R = [[cos, -sin * height / width], [sin * width / height, cos]]: a rotation in
    # coordinates that run from -1 to 1 along both sides.
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
    """Crop a window of random area and shape from each sample and resize it to `size`.

    Windows are drawn as in torchvision's RandomResizedCrop, with two differences: they are not rounded to whole pixels,
    and `ratio` is relative to the image. A ratio of 1 is the image's own shape, which the network sees in validation.
    Shrinking has no anti-aliasing, so the images should not be much larger than `size`.

    Args:
        size: height and width of the result, or one number for both.
        scale: smallest and largest area of the window, as a fraction of the image's area.
        ratio: smallest and largest width / height of the window relative to the image; drawn log-uniformly.
    """
    shape = (10, len(images))  # ten windows for each sample; the first that fits is taken
    area = uniform(*scale, shape, generator)
    aspect = uniform(math.log(ratio[0]), math.log(ratio[1]), shape, generator).exp()
    tall, wide = (area / aspect).sqrt(), (area * aspect).sqrt()
    x, y = uniform(-1, 1, (2, len(images)), generator)
    fits = (tall <= 1) & (wide <= 1)
    first = fits.int().argmax(0, keepdim=True)
    # If none fits, take the largest window in the centre with the allowed ratio nearest to 1.
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
    """Enlarge or shrink each sample, and crop a window of `size` at a random position, in one interpolation.

    A window larger than the sample is filled with grey and void. Shrinking has no anti-aliasing, so the images should
    not be much larger than `size`.

    Args:
        size: height and width of the result, or one number for both.
        scale: smallest and largest factor; drawn log-uniformly. At ratio 1, factor 1 shows the whole image and
            factor 2 a quarter of its area.
        ratio: smallest and largest width / height of the window relative to the image; drawn log-uniformly.
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
    """Change brightness, contrast and saturation of each sample, in this order, as torchvision's ColorJitter does.

    Args:
        brightness, contrast, saturation: x; the factor is drawn from [1 - x, 1 + x].
    """

    def factor(most: float) -> torch.Tensor:
        return uniform(1 - most, 1 + most, (len(images), 1, 1, 1), generator)

    def grey(images: torch.Tensor) -> torch.Tensor:
        red, green, blue = images.split(1, dim=1)
        return 0.299 * red + 0.587 * green + 0.114 * blue  # a tensor of weights would need a copy to the GPU

    images = (images * factor(brightness)).clamp_(0, 1)
    images = torch.lerp(grey(images).mean((2, 3), keepdim=True), images, factor(contrast)).clamp_(0, 1)
    return torch.lerp(grey(images), images, factor(saturation)).clamp_(0, 1), masks


def per_sample(transform: nn.Module) -> Callable:
    """Return an augmentation for whole batches that applies a transform of torchvision.transforms.v2 to each sample.

    Image and mask are passed as tv_tensors, so geometric changes apply to both and colour changes only to the image.
    Set the transform's `fill={Image: 0.45, Mask: 255}`: by default, pixels outside the image become class 0. All
    results must have the same size. This is slower than the other functions in this file.
    """
    from torchvision import tv_tensors  # importing it takes as long as importing torch

    def augment(images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator) -> Pair:
        seeds = torch.randint(2**31, (len(images),), generator=generator, device=generator.device).tolist()
        samples = []
        with torch.random.fork_rng(devices=[]):  # transforms draw from torch's global generator
            for image, mask, seed in zip(images, masks, seeds, strict=True):
                torch.manual_seed(seed)
                samples.append(transform(tv_tensors.Image(image), tv_tensors.Mask(mask)))
        images, masks = (torch.stack(parts).as_subclass(torch.Tensor) for parts in zip(*samples, strict=True))
        return images.contiguous(memory_format=torch.channels_last), masks

    augment.__name__ = type(transform).__name__
    return augment


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return random floats between `low` and `high` on the generator's device."""
    return low + (high - low) * torch.rand(shape, device=generator.device, generator=generator)


def _resample(images: torch.Tensor, masks: torch.Tensor, theta: torch.Tensor, size: int | tuple[int, int]) -> Pair:
    """Sample images (bilinear) and masks (nearest) at the same positions; positions outside give grey and void.

    Args:
        theta: (B, 6), the rows of a 2x3 matrix per sample. It maps a position in the new image to one in the old image.
            In both, x and y run from -1 at the left and upper edge to 1 at the right and lower edge.
        size: height and width of the result, or one number for both.
    """
    height, width = masks.shape[-2:]
    size = (size, size) if isinstance(size, int) else size
    grid = F.affine_grid(theta.view(-1, 2, 3), (len(images), 1, *size), align_corners=False)
    # grid_sample fills with 0, so subtract GREY before and add it after.
    images = F.grid_sample(images - GREY, grid, mode="bilinear", align_corners=False).add_(GREY)
    masks = F.grid_sample(masks.float()[:, None], grid, mode="nearest", align_corners=False)[:, 0].long()
    # Beyond the centres of the outermost pixels, grey is mixed in: void. 1e-5 allows for rounding.
    unknown = (grid[..., 0].abs() > 1 - 1 / width + 1e-5) | (grid[..., 1].abs() > 1 - 1 / height + 1e-5)
    return images.contiguous(memory_format=torch.channels_last), masks.masked_fill_(unknown, VOID)
