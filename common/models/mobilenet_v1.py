"""MobileNetV1: alternating depthwise and pointwise convolutions, in the Keras variant.

Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, arXiv 2017.
Keras has ImageNet weights for it. Its BatchNorm has eps 1e-3, its activation is ReLU6, and its padding is TensorFlow's
SAME: with stride 2 and even sizes, only right and below.
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

# Output channels and stride of the pairs dw1 + pw1, dw2 + pw2, ...
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2))


def mobilenet_v1_layers() -> nn.Sequential:
    """Return the layers up to pw12, with 1024 channels at stride 32; their names are those in the weights file.

    The thirteenth pair (also 1024 channels at stride 32) and the classifier are left out: we have no weights of pw13.
    """
    layers = OrderedDict(conv1=Conv(3, 32, kernel_size=3, stride=2), bn1=BatchNormReLU6(32))
    channels = 32
    for number, (out_channels, stride) in enumerate(BLOCKS, start=1):
        layers[f"dw{number}"] = Conv(channels, channels, kernel_size=3, stride=stride, groups=channels)
        layers[f"dw{number}_bn"] = BatchNormReLU6(channels)
        layers[f"pw{number}"] = Conv(channels, out_channels, kernel_size=1, stride=1)
        layers[f"pw{number}_bn"] = BatchNormReLU6(out_channels)
        channels = out_channels
    return nn.Sequential(layers)


class Conv(nn.Conv2d):
    """Convolution without bias and with TensorFlow's SAME padding; the stride must divide the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, groups: int = 1):
        padding = kernel_size // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        if self.stride == (2, 2):
            x = F.pad(x, (0, 1, 0, 1))
        return super().forward(x)


class BatchNormReLU6(nn.BatchNorm2d):
    """Batch normalisation, then min(max(x, 0), 6)."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised and clipped map, same shape."""
        return F.relu6(super().forward(x))
