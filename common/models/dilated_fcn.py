"""DilatedFCN: our own design, which keeps detail instead of rebuilding it from a map at stride 32.

The feature map stops shrinking at stride 8. Dilated convolutions there see as far as more strides would. On the way up,
the finer maps are added, so outlines need not pass through the coarse map.

Dilation after Yu & Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, ICLR 2016; sums across after Long,
Shelhamer & Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015.
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.models.layers import Normalize, conv_bn, conv_bn_relu, init_convs, pad_to_multiple, upsample


class DilatedFCN(nn.Module):
    """Network of stride 8 with dilated convolutions; 1,332,373 parameters at 21 classes, a quarter of BasicFCN's.

    The receptive field of an output pixel is 519 x 519 pixels.

    Args:
        num_classes: number of output channels.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.arguments = {"num_classes": num_classes}
        self.normalize = Normalize()
        self.down2 = conv_bn_relu(3, 32, stride=2)  # to 1/2
        self.down4 = conv_bn_relu(32, 64, stride=2)
        self.down8 = conv_bn_relu(64, 128, stride=2)
        self.context = nn.Sequential(*[DilatedBlock(128, dilation) for dilation in (1, 2, 4, 8)])
        self.up4 = nn.Conv2d(128, 64, kernel_size=1, bias=False)
        self.refine4 = conv_bn_relu(64, 64)
        self.up2 = nn.Conv2d(64, 32, kernel_size=1, bias=False)
        self.refine2 = conv_bn_relu(32, 32)
        self.classifier = nn.Conv2d(32, num_classes, kernel_size=1)
        init_convs(self, nn.init.xavier_uniform_)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        height, width = images.shape[-2:]
        x2 = self.down2(pad_to_multiple(self.normalize(images), 8))
        x4 = self.down4(x2)
        x = self.context(self.down8(x4))
        # Anchor 0: a convolution of stride 2, padded on both sides, is centred on the first of two input values.
        x = self.refine4(upsample(self.up4(x), anchor=0) + x4)
        x = self.refine2(upsample(self.up2(x), anchor=0) + x2)
        return upsample(self.classifier(x).float())[..., :height, :width]  # half a pixel off, but faster


class DilatedBlock(nn.Module):
    """Residual block of two 3x3 convolutions with a dilation; the map keeps its size."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.convs = nn.Sequential(
            conv_bn_relu(channels, channels, dilation=dilation), conv_bn(channels, channels, dilation=dilation)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, H, W) to the same shape."""
        return F.relu(x + self.convs(x))
