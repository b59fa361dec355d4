"""Small pieces that several models use."""

import torch
from torch import nn
from torch.nn import functional as F

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """(image - mean) / std per channel. Part of the model, so that training, prediction and export cannot disagree.

    Args:
        mean, std: per channel, for images (B, 3, H, W) in [0, 1]; ImageNet's by default.
    """

    def __init__(self, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the normalised images, same shape."""
        return (images - self.mean) / self.std


def pad_to_multiple(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Pad `x` (B, C, H, W) with zeros, right and below, until `stride` divides its height and width."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % stride, 0, -height % stride))


def xavier_init(model: nn.Module) -> nn.Module:
    """Draw all convolution weights from Xavier's uniform distribution, set their biases to 0; return the model.

    Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
