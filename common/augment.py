"""Augmentation of whole batches, on the device: image and mask together, drawn anew for every sample.

Each function takes images (B, 3, H, W) float in [0, 1], masks (B, H, W) int64 and a generator on their device, and
returns the two changed alike.
"""

import torch


def random_hflip(
    images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror every other sample, on average, left to right."""
    flip = torch.rand(len(images), device=images.device, generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    return images, torch.where(flip[:, None, None], masks.flip(2), masks)
