"""UNet: the network of the paper, with padded convolutions and batch normalisation.

Ronneberger, Fischer & Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015. The paper's
convolutions are not padded: its output is smaller than its input, and it must crop the skips.
"""

from itertools import pairwise

import torch
from torch import nn

from common.models.layers import FastConvTranspose2d, Normalize, double_conv, init_convs, pad_to_multiple


class UNet(nn.Module):
    """Four steps down and four up, each with a skip; 31,038,933 parameters at 21 classes.

    Args:
        num_classes: number of output channels.
        width: channels at full size, doubled at each step down; 64 in the paper.
    """

    def __init__(self, num_classes: int, width: int = 64):
        super().__init__()
        self.arguments = {"num_classes": num_classes, "width": width}
        widths = [width * 2**step for step in range(5)]
        self.normalize = Normalize()
        self.down = nn.ModuleList([double_conv(3, width)])  # full size
        self.up_convs, self.combine = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in pairwise(widths):
            self.down.append(double_conv(fine, coarse))  # 1/2, 1/4, 1/8, 1/16
            self.up_convs.append(FastConvTranspose2d(coarse, fine, kernel_size=2, stride=2))
            self.combine.append(double_conv(2 * fine, fine))  # the upsampled map and the skip
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)
        init_convs(self, nn.init.xavier_uniform_)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1], of any size, to logits (B, num_classes, H, W)."""
        height, width = images.shape[-2:]
        x = self.down[0](pad_to_multiple(self.normalize(images), 16))
        skips = []
        for down in self.down[1:]:
            skips.append(x)
            x = down(self.pool(x))
        for up_conv, combine in zip(reversed(self.up_convs), reversed(self.combine), strict=True):
            x = combine(torch.cat([skips.pop(), up_conv(x)], dim=1))
        return self.classifier(x)[..., :height, :width]
