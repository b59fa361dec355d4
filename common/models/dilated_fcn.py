"""DilatedFCN: our own. Do not shrink the map to 1/32 and rebuild what was lost: keep it.

The map stops shrinking at 1/8, where dilated convolutions see as far as strides would have, and on the way up the finer
maps are added to it, so that outlines need not pass through the coarse one.

Dilation after Yu & Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, ICLR 2016; sums across after Long,
Shelhamer & Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015.
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.models.layers import Normalize, conv_bn, conv_bn_relu, init_convs, pad_to_multiple, upsample


class DilatedFCN(nn.Module):
    """Detail is kept, not rebuilt; 1,332,373 parameters at 21 classes, a quarter of BasicFCN's.

    Each output sees 519 x 519 pixels of the image.

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
        # A convolution of stride 2 that is padded on both sides is centred on the first of the two values it makes one.
        x = self.refine4(upsample(self.up4(x), anchor=0) + x4)
        x = self.refine2(upsample(self.up2(x), anchor=0) + x2)
        return upsample(self.classifier(x).float())[..., :height, :width]  # half a pixel beside it, and faster


class DilatedBlock(nn.Module):
    """Two 3x3 convolutions whose taps are `dilation` apart, added to what they were given; the map keeps its size."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.convs = nn.Sequential(
            conv_bn_relu(channels, channels, dilation=dilation), conv_bn(channels, channels, dilation=dilation)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, H, W) to the same shape."""
        return F.relu(x + self.convs(x))
